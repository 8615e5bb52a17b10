"""One event as one line of JSON, and back, with the payload as it was stored.

Never decodes a payload: it stands in the line as it came (bytea payloads in base64), after everything else, so that it
can be cut out by its length.
"""

from __future__ import annotations

import base64
import uuid
from datetime import datetime
from typing import Any, Final

import orjson

from headwater.storage.model import RecordedEvent

_DATA: Final = b',"data":'
_METADATA: Final = b',"metadata":'


def encode_event(event: RecordedEvent, *, binary: bool) -> bytes:
    """Return an event's line, with its end. ``binary``: the payloads are no JSON."""
    data = _packed(event.raw_data, binary)
    line = [
        orjson.dumps(
            {
                "position": event.position,
                "stream": event.stream,
                "version": event.version,
                "id": event.id,
                "type": event.type,
                "causation_id": event.causation_id,
                "correlation_id": event.correlation_id,
                "created_at": event.created_at,
                "tags": event.raw_tags,
                "schema_version": event.schema_version,
                "data_bytes": len(data),
            }
        )[:-1],
        _DATA,
        data,
    ]
    if event.raw_metadata is not None:
        line += [_METADATA, _packed(event.raw_metadata, binary)]
    return b"".join([*line, b"}\n"])


def decode_event(line: bytes, *, binary: bool) -> RecordedEvent:
    """Return the event of a line, numbered by its position. Raises ValueError or KeyError for a line that is none."""
    # Within the strings before it a quote has a backslash before it, so the first occurrence is the field.
    head, found, rest = line.partition(_DATA)
    if not found:
        raise ValueError("a line without data")
    fields: dict[str, Any] = orjson.loads(head + b"}")
    size = fields["data_bytes"]
    metadata = rest[size:].removeprefix(_METADATA).rstrip(b"\n")[:-1]
    return RecordedEvent(
        fields["position"],
        fields["stream"],
        fields["version"],
        fields["position"],
        uuid.UUID(fields["id"]),
        fields["type"],
        _unpacked(rest[:size], binary),
        _unpacked(metadata, binary) if metadata else None,
        _id(fields["causation_id"]),
        _id(fields["correlation_id"]),
        datetime.fromisoformat(fields["created_at"]),
        fields["tags"],
        fields["schema_version"],
    )


def _packed(raw: Any, binary: bool) -> bytes:
    if binary:
        return orjson.dumps(base64.b64encode(raw).decode())
    # Line breaks in stored JSON stand between its parts: in strings they are escaped.
    return bytes(raw).replace(b"\r", b" ").replace(b"\n", b" ")


def _unpacked(raw: bytes, binary: bool) -> bytes:
    return base64.b64decode(orjson.loads(raw)) if binary else raw


def _id(text: str | None) -> uuid.UUID | None:
    return None if text is None else uuid.UUID(text)
