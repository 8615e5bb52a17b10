"""Arrays in Postgres' binary format, made by joining bytes: the cheapest way to hand over many values.

Knows the wire format only; which values belong together is the append path's business.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

_HEADER: Final = struct.Struct("!iiIii")
_HEADER_BYTES: Final = _HEADER.size
_EMPTY: Final = struct.Struct("!iiI")
_LENGTH: Final = struct.Struct("!i")
_TIME: Final = struct.Struct("!iq")
_TIME_ZERO: Final = datetime(2000, 1, 1, tzinfo=UTC)
_NULL: Final = _LENGTH.pack(-1)
_UUID_LENGTH: Final = _LENGTH.pack(16)


class BinaryArray:
    """A one-dimensional array, ready to be sent."""

    __slots__ = ("wire",)

    array_oid: ClassVar[int]
    element_oid: ClassVar[int]

    def __init__(self, wire: bytes) -> None:
        self.wire = wire

    @classmethod
    def of_wire(cls, elements: bytes, count: int) -> BinaryArray:
        """Make an array of joined elements, each with its length before it."""
        if not count:
            return cls(_EMPTY.pack(0, 0, cls.element_oid))
        return cls(_HEADER.pack(1, 1, cls.element_oid, count, 1) + elements)


class BigintArray(BinaryArray):
    array_oid, element_oid = 1016, 20

    @classmethod
    def of(cls, values: Sequence[int]) -> BinaryArray:
        return cls.of_wire(b"".join([b"\0\0\0\x08" + value.to_bytes(8, signed=True) for value in values]), len(values))


class IntegerArray(BinaryArray):
    array_oid, element_oid = 1007, 23

    @classmethod
    def of(cls, values: Sequence[int]) -> BinaryArray:
        return cls.of_wire(b"".join([b"\0\0\0\x04" + value.to_bytes(4, signed=True) for value in values]), len(values))


class UuidArray(BinaryArray):
    array_oid, element_oid = 2951, 2950


class TextArray(BinaryArray):
    array_oid, element_oid = 1009, 25

    @classmethod
    def of(cls, values: Iterable[str]) -> BinaryArray:
        parts = [text_part(value) for value in values]
        return cls.of_wire(b"".join(parts), len(parts))


class JsonArray(BinaryArray):
    array_oid, element_oid = 199, 114


class JsonbArray(BinaryArray):
    array_oid, element_oid = 3807, 3802


class ByteaArray(BinaryArray):
    array_oid, element_oid = 1001, 17


class TimestamptzArray(BinaryArray):
    array_oid, element_oid = 1185, 1184


ARRAY_KINDS: Final[tuple[type[BinaryArray], ...]] = (
    BigintArray,
    IntegerArray,
    UuidArray,
    TextArray,
    JsonArray,
    JsonbArray,
    ByteaArray,
    TimestamptzArray,
)

NULL_PART: Final = _NULL


def bytes_part(value: bytes) -> bytes:
    """Return an element with its length before it."""
    return _LENGTH.pack(len(value)) + value


def text_part(value: str) -> bytes:
    """Return a text element with its length before it."""
    return bytes_part(value.encode())


def time_part(value: datetime) -> bytes:
    """Return a timestamptz element with its length before it."""
    since = value - _TIME_ZERO
    return _TIME.pack(8, (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)


def uuid_part(value: uuid.UUID) -> bytes:
    """Return a uuid element with its length before it."""
    return _UUID_LENGTH + value.int.to_bytes(16)


def numbers_of(wire: bytes | None) -> list[Any] | None:
    """Return the elements of an array of bigint or integer, None for null."""
    if wire is None:
        return None
    dimensions, has_nulls, element_oid, *size = _HEADER.unpack_from(wire) if len(wire) >= _HEADER_BYTES else (0, 0, 0)
    if not dimensions:
        return []
    count = size[0]
    if not has_nulls:
        element = "iq" if element_oid == BigintArray.element_oid else "ii"
        return list(struct.unpack_from("!" + element * count, wire, _HEADER_BYTES)[1::2])
    found: list[Any] = []
    place = _HEADER_BYTES
    for _ in range(count):
        [length] = _LENGTH.unpack_from(wire, place)
        place += 4
        found.append(None if length < 0 else int.from_bytes(wire[place : place + length], signed=True))
        place += max(0, length)
    return found
