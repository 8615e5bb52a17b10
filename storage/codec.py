"""How payloads become bytes and values again. JSON by default; anything with these two methods will do.

Never does I/O.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import orjson

from headwater.storage.errors import EncodingFailed
from headwater.storage.model import DecodedEvent, RecordedEvent


class Codec(Protocol):
    """Turns payloads into what is stored, and back. The event's type tells the codec what to expect."""

    def encode(self, event_type: str, value: Any) -> bytes:
        """Return the stored form. Raises EncodingFailed."""
        ...

    def decode(self, event_type: str, raw: bytes) -> Any:
        """Return the value of a stored form. Raises EncodingFailed."""
        ...


class JsonCodec:
    """JSON, with dataclasses, datetimes, dates, times, enums and UUIDs written as JSON knows them."""

    def encode(self, event_type: str, value: Any) -> bytes:
        """Return compact JSON in UTF-8."""
        try:
            return orjson.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise EncodingFailed(event_type, str(error)) from error

    def decode(self, event_type: str, raw: bytes) -> Any:
        """Return the JSON value."""
        try:
            return orjson.loads(raw)
        except ValueError as error:
            raise EncodingFailed(event_type, str(error)) from error


JSON: Final = JsonCodec()


def decode_all(codec: Codec, events: list[RecordedEvent]) -> list[RecordedEvent]:
    """Return events whose payloads the codec has decoded; plain JSON is left alone until somebody looks at it."""
    if type(codec) is JsonCodec:
        return events
    return [
        DecodedEvent(
            *event[:6],
            codec.decode(event.type, event.raw_data),
            None if event.raw_metadata is None else codec.decode(event.type, event.raw_metadata),
            *event[8:],
        )
        for event in events
    ]
