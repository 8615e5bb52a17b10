"""How payloads become bytes and values again. JSON by default; anything with these two methods will do.

Never does I/O.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import marshal
import re
from collections.abc import Sequence
from typing import Any, Final, Protocol

import orjson

from headwater.storage.errors import EncodingFailed, InvalidArgument


class Codec(Protocol):
    """Turns payloads into what is stored, and back. The event's type tells the codec what to expect."""

    def encode(self, event_type: str, value: Any) -> bytes:
        """Return the stored form. Raises EncodingFailed."""
        ...

    def decode(self, event_type: str, raw: bytes) -> Any:
        """Return the value of a stored form. Raises EncodingFailed."""
        ...


class JsonCodec:
    """JSON, with dataclasses, pydantic models, datetimes, dates, times, enums and UUIDs written as JSON knows them."""

    def encode(self, event_type: str, value: Any) -> bytes:
        """Return compact JSON in UTF-8. Refuses NaN and Infinity, too: JSON has no word for them."""
        try:
            raw = orjson.dumps(value, _model_values)
        except (TypeError, ValueError, RecursionError) as error:
            raise EncodingFailed(event_type, str(error)) from error
        if _null(raw):  # what orjson writes for them, without a word
            _refuse_nan(event_type, value)
        return raw

    def encode_many(self, event_types: Sequence[str], values: Sequence[Any]) -> list[bytes]:
        """Do the same for many events, with one look for all of them when none says null."""
        try:
            raws = [orjson.dumps(value, _model_values) for value in values]
        except (TypeError, ValueError, RecursionError):
            return list(map(self.encode, event_types, values))  # one of them fails, and is named
        if _null(b"".join(raws)):
            for event_type, value, raw in zip(event_types, values, raws, strict=True):
                if _null(raw):
                    _refuse_nan(event_type, value)
        return raws

    def decode(self, event_type: str, raw: bytes) -> Any:
        """Return the JSON value."""
        try:
            return orjson.loads(raw)
        except ValueError as error:
            raise EncodingFailed(event_type, str(error)) from error


JSON: Final = JsonCodec()

_null: Final = re.compile(b"null").search
"""Twice as fast as ``in``, which counts: this is done for each event."""


_like_nan: Final = re.compile(rb"[\xf0-\xff][\x7f\xff]").search
"""The last two bytes of every float that is no number, and of some other values."""


def _may_hold_nan(value: Any) -> bool:
    """Whether to look for NaN and Infinity among a value's floats; False is certain, and comes many times sooner."""
    try:
        return _like_nan(marshal.dumps(value)) is not None
    except ValueError:  # something inside is none of Python's own plain values
        return True


def _refuse_nan(event_type: str, value: Any) -> None:
    """Raise EncodingFailed when NaN or Infinity is among a value's floats."""
    if _may_hold_nan(value):
        try:
            json.dumps(value, allow_nan=False, default=_inside)
        except (TypeError, ValueError, RecursionError) as error:
            raise EncodingFailed(event_type, str(error)) from error


def is_model(kind: type) -> bool:
    """Whether a class is one of pydantic's models, or behaves like one."""
    return callable(getattr(kind, "model_dump", None)) and callable(getattr(kind, "model_validate", None))


def type_of(payload: object) -> str:
    """Return what an event is called whose type was not given: the name of its payload's class.

    Raises InvalidArgument for a payload that is no dataclass and no model.
    """
    kind = type(payload)
    if dataclasses.is_dataclass(kind) or is_model(kind):
        return kind.__name__
    raise InvalidArgument("event.type", f"must not be empty for a payload that is a {kind.__name__}")


def _model_values(value: Any) -> Any:
    """Write what JSON does not know: called for such values only."""
    if is_model(type(value)):
        return value.model_dump(mode="json")
    raise TypeError(f"Type is not JSON serializable: {type(value).__name__}")


def _inside(value: Any) -> Any:
    """Show what of a value's inside orjson has written, to whoever looks for floats in it."""
    if isinstance(value, enum.Enum):
        return value.value
    if is_model(type(value)):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value):
        names = getattr(value, "__dict__", None) or [field.name for field in dataclasses.fields(value)]
        return {name: getattr(value, name) for name in names if not name.startswith("_")}
    return None
