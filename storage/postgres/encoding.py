"""Turns appends into the arrays that ``append_v1`` takes, checking every value on the way.

Never sends anything. Encoding is done by the caller of an append, joining by whoever sends a batch of them.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, cast

from headwater.storage.checks import (
    check_created_at,
    check_expected,
    check_filter,
    check_name,
    check_number,
    check_target,
    check_uuid,
)
from headwater.storage.codec import Codec, JsonCodec, type_of
from headwater.storage.errors import DuplicateEvent, EncodingFailed, InvalidArgument
from headwater.storage.model import ANY, NO_STREAM, AppendCondition, Expected, NewEvent, StreamAppend
from headwater.storage.postgres.arrays import (
    NULL_PART,
    BigintArray,
    BinaryArray,
    ByteaArray,
    IntegerArray,
    JsonArray,
    JsonbArray,
    TextArray,
    TimestamptzArray,
    UuidArray,
    bytes_part,
    text_part,
    time_part,
)
from headwater.storage.postgres.statements import PayloadType

Value = TypeVar("Value")

Parts: TypeAlias = Sequence[Sequence[bytes] | None]
"""The elements of columns, each with its length before it: id, type, data, metadata, causation id, correlation id,
tags, schema version. None for a column of nulls (and for a column of schema versions that are all 1)."""

MAX_PAYLOAD_BYTES: Final = 200 * 1024 * 1024
"""What still fits into one protocol message together with its copies; Postgres' own limit is 1 GB."""

MAX_APPEND_BYTES: Final = 900 * 1024 * 1024
"""So many bytes of payloads go into one append: the server takes no message of 1 GB, nor a parameter."""

_PAYLOAD_ARRAYS: Final[dict[PayloadType, type[BinaryArray]]] = {
    "json": JsonArray,
    "jsonb": JsonbArray,
    "bytea": ByteaArray,
}


class EncodedAppend(NamedTuple):
    """One stream's part of an append: each column's elements joined already, None for a column of nulls.

    Nothing else of the events is kept while they wait: they are many, and the garbage collector would visit each.
    """

    stream: str
    expected: Expected
    size: int
    """How many events."""
    columns: Sequence[bytes | None]
    """id, type, data, metadata, causation id, correlation id, tags, schema version, time."""

    @property
    def ids(self) -> list[uuid.UUID]:
        """The events' ids, in their order."""
        wire = self.columns[0] or b""
        return [uuid.UUID(bytes=wire[place + 4 : place + 20]) for place in range(0, len(wire), 20)]


class Unit(NamedTuple):
    """What stands or falls together: the appends of one call."""

    appends: Sequence[EncodedAppend]
    events: int
    payload_bytes: int
    """How long its payloads are together: all else of an event is short."""
    condition: AppendCondition | None = None

    @classmethod
    def of(cls, appends: Sequence[EncodedAppend], condition: AppendCondition | None = None) -> Unit:
        """Make one of appends."""
        events = payloads = 0
        for append in appends:
            _, _, data, metadata, *_ = append.columns
            events += append.size
            payloads += len(data or b"") + len(metadata or b"")
        return cls(appends, events, payloads, condition)

    @property
    def lone(self) -> bool:
        """Whether this is the plainest append: to one stream, without a condition, at the present time."""
        return self.condition is None and len(self.appends) == 1 and self.appends[0].columns[-1] is None


class Encoder:
    """Encodes the appends of one store."""

    def __init__(self, payload: PayloadType, codec: Codec) -> None:
        self._codec = codec
        # Not of a codec that only derives from it, which may encode otherwise.
        self._encode_many = codec.encode_many if type(codec) is JsonCodec else self._one_by_one
        array = _PAYLOAD_ARRAYS[payload]
        self._kinds: tuple[type[BinaryArray], ...] = (
            *(UuidArray, TextArray, array, array, UuidArray, UuidArray, TextArray, IntegerArray, TimestamptzArray),
        )
        self._payload_prefix = _payload_prefix(payload)

    def unit(
        self,
        appends: Sequence[StreamAppend],
        created_at: datetime | None = None,
        condition: AppendCondition | None = None,
    ) -> Unit:
        """Check and encode one call's appends.

        Raises InvalidArgument, ReservedStream, EncodingFailed, DuplicateEvent (an id twice within the call).
        """
        _check_call(created_at, condition)
        if not isinstance(appends, Sequence) or set(map(type, appends)) - {StreamAppend}:
            raise InvalidArgument("appends", "must be a list of StreamAppend")
        if not appends:
            raise InvalidArgument("appends", "must not be empty")
        encoded = [self._append(*append, created_at) for append in appends]
        if len(encoded) > 1:
            if len({append.stream for append in encoded}) != len(encoded):
                raise InvalidArgument("appends", "must name each stream once")
            check_distinct(encoded[-1].stream, [id for append in encoded for id in append.ids])
        return _sendable(Unit.of(encoded, condition))

    def unit_of_one(
        self,
        stream: str,
        events: Sequence[NewEvent],
        expected: Expected,
        created_at: datetime | None = None,
        condition: AppendCondition | None = None,
    ) -> Unit:
        """Do the same for an append to one stream."""
        _check_call(created_at, condition)
        encoded = self._append(stream, events, expected, created_at)
        return _sendable(Unit.of((encoded,), condition))

    def _append(
        self, stream: str, events: Sequence[NewEvent], expected: Expected, created_at: datetime | None
    ) -> EncodedAppend:
        check_target(stream, "append to")
        check_expected(expected)
        if type(events) is not list and (isinstance(events, NewEvent) or not isinstance(events, Sequence)):
            raise InvalidArgument("events", f"must be a list of NewEvent, not {type(events).__name__}")
        if not events:
            raise InvalidArgument("events", "must not be empty")
        if len(events) == 1 and created_at is None:
            return EncodedAppend(stream, expected, 1, self._lone_columns(events[0]))
        times = None if created_at is None else time_part(created_at) * len(events)
        return EncodedAppend(stream, expected, len(events), self._columns(stream, events, times))

    def _columns(self, stream: str, events: Sequence[NewEvent], times: bytes | None) -> Sequence[bytes | None]:
        return (*[None if part is None else b"".join(part) for part in self.parts(stream, events)], times)

    def parts(self, stream: str, events: Sequence[NewEvent]) -> Parts:
        """Return the elements of each column of events but the time, None for a column of nulls."""
        if set(map(type, events)) != {NewEvent}:
            odd = next(event for event in events if type(event) is not NewEvent)
            raise InvalidArgument("events", f"must be a list of NewEvent, it holds a {type(odd).__name__}")
        # An event is a tuple: its columns come apart at once, not field by field.
        types, data, metadata, ids, causations, correlations, tags, versions, subjects = zip(*events, strict=True)
        id_parts = _id_parts("event.id", ids)
        if len(ids) > 1 and len(set(id_parts)) != len(ids):
            check_distinct(stream, ids)
        if subjects.count(None) != len(ids):
            raise InvalidArgument("event.subject", "needs a store that was opened with encryption")
        if "" in types:
            types = tuple([name or type_of(value) for name, value in zip(types, data, strict=True)])
        return (
            id_parts,
            [_type_part(name) for name in types],
            self._payload_parts(types, data),
            self._metadata(types, metadata),
            _nullable(causations, _causation_parts),
            _nullable(correlations, _correlation_parts),
            None if tags.count(()) == len(ids) else _nullable([each or None for each in tags], _tags_parts),
            _versions_column(versions),
        )

    def _lone_columns(self, event: object) -> Sequence[bytes | None]:
        """Do for one event what is done for many, in half the time: for each append of one."""
        if type(event) is not NewEvent:
            raise InvalidArgument("events", f"must be a list of NewEvent, it holds a {type(event).__name__}")
        name, data, metadata, id, causation_id, correlation_id, tags, version, subject = event
        id_part = _id_part("event.id", id)
        if subject is not None:
            raise InvalidArgument("event.subject", "needs a store that was opened with encryption")
        name = type_of(data) if name == "" else name
        return (
            id_part,
            _type_part(name),
            self._payload_part(name, data),
            None if metadata is None else self._payload_part(name, metadata),
            None if causation_id is None else _id_part("event.causation_id", causation_id),
            None if correlation_id is None else _id_part("event.correlation_id", correlation_id),
            _tags_part(tags) if tags else None,
            None if version == 1 else _version_part(version),
            None,
        )

    def _one_by_one(self, types: Sequence[str], values: Sequence[Any]) -> list[bytes]:
        return list(map(self._codec.encode, types, values))

    def _payload_part(self, name: str, value: Any) -> bytes:
        raw = self._codec.encode(name, value)
        if len(raw) > MAX_PAYLOAD_BYTES:
            raise EncodingFailed(name, f"{len(raw)} bytes, the limit is {MAX_PAYLOAD_BYTES}")
        raw = self._payload_prefix + raw
        return len(raw).to_bytes(4) + raw

    def _payload_parts(self, types: Sequence[str], values: Sequence[Any]) -> list[bytes]:
        encoded = self._encode_many(types, values)
        if (longest := max(map(len, encoded))) > MAX_PAYLOAD_BYTES:
            name = next(name for name, raw in zip(types, encoded, strict=True) if len(raw) == longest)
            raise EncodingFailed(name, f"{longest} bytes, the limit is {MAX_PAYLOAD_BYTES}")
        if prefix := self._payload_prefix:
            encoded = [prefix + raw for raw in encoded]
        # What bytes_part does, without a call for each: this is done for every event.
        return [len(raw).to_bytes(4) + raw for raw in encoded]

    def _metadata(self, types: Sequence[str], values: Sequence[Any]) -> Sequence[bytes] | None:
        if values.count(None) == len(values):
            return None
        typed = [None if value is None else (name, value) for name, value in zip(types, values, strict=True)]
        return _nullable(typed, lambda given: self._payload_parts(*zip(*given, strict=True)))

    def parameters(self, units: Sequence[Unit]) -> list[object]:
        """Return the parameters of one call for many units."""
        appends = [append for unit in units for append in unit.appends]
        counts = [append.size for append in appends]
        shape = _shape(
            [append.stream for append in appends],
            [expected_code(append.expected) for append in appends],
            counts,
            [len(unit.appends) for unit in units],
        )
        columns = [_joined(column, counts) for column in zip(*[append.columns for append in appends], strict=True)]
        return shape + self._arrays(columns, sum(counts))

    def lone_parameters(self, append: EncodedAppend) -> list[object]:
        """Return the parameters of the call for one append that brings no times."""
        name, expected = append.stream, expected_code(append.expected)
        return [name, expected, *self._arrays(append.columns[:-1], append.size)]

    def events_parameters(self, appends: Sequence[EncodedAppend]) -> list[object]:
        """Return the parameters of the call for events that bring no times, each to a stream of its own."""
        names = TextArray.of([append.stream for append in appends])
        expected = BigintArray.of([expected_code(append.expected) for append in appends])
        counts = [1] * len(appends)
        every = zip(*[append.columns[:-1] for append in appends], strict=True)
        return [names, expected, *self._arrays([_joined(column, counts) for column in every], len(appends))]

    def event_parameters(self, append: EncodedAppend) -> list[object]:
        """Return the parameters of the call for one event that brings no time, each in its binary form."""
        # An element's length goes before it in an array; a parameter of its own has it elsewhere.
        values = [None if column is None else column[4:] for column in append.columns[:-1]]
        return [append.stream, expected_code(append.expected), *values]

    def _arrays(self, columns: Sequence[bytes | None], total: int) -> list[object]:
        return [
            None if wire is None else kind.of_wire(wire, total)
            for kind, wire in zip(self._kinds, columns, strict=False)  # the last kind, times, may be left out
        ]


def _shape(
    streams: Sequence[str], expected: Sequence[int], counts: Sequence[int], units: Sequence[int]
) -> list[object]:
    """Return the parameters that say which events belong to which append, stream and unit."""
    names = dict.fromkeys(streams)
    place = {name: number for number, name in enumerate(names, 1)}
    append_of = b"".join([number.to_bytes(8) * count for number, count in enumerate(counts, (4 << 32) + 1)])
    return [
        TextArray.of(names),
        IntegerArray.of([place[name] for name in streams]),
        BigintArray.of(expected),
        IntegerArray.of(counts),
        IntegerArray.of(units),
        IntegerArray.of_wire(append_of, sum(counts)),
    ]


def _joined(parts: Sequence[bytes | None], counts: Sequence[int]) -> bytes | None:
    nulls = parts.count(None)
    if nulls == len(parts):
        return None
    if not nulls:
        return b"".join(cast("Sequence[bytes]", parts))
    return b"".join([NULL_PART * n if part is None else part for part, n in zip(parts, counts, strict=True)])


def condition_parameters(condition: AppendCondition) -> list[object]:
    """Return the parameters that stand before an append's own when it has a condition."""
    where = condition.where
    names = [list(names) or None for names in (where.types, where.tags, where.streams, where.categories)]
    return [condition.after, *names, where.stream_prefix]


def _sendable(unit: Unit) -> Unit:
    if (size := unit.payload_bytes) > MAX_APPEND_BYTES:
        limit = f"must not hold more than {MAX_APPEND_BYTES} bytes of payloads together"
        raise InvalidArgument("events", f"{limit}, these hold {size}: append them in several calls")
    return unit


def _check_call(created_at: object, condition: object) -> None:
    if created_at is not None:
        check_created_at("created_at", created_at)
    if condition is not None:
        _check_condition(condition)


def _check_condition(condition: object) -> None:
    if not isinstance(condition, AppendCondition):
        raise InvalidArgument("condition", f"must be an AppendCondition, not {type(condition).__name__}")
    where = check_filter(condition.where)
    if where.since is not None or where.until is not None:
        raise InvalidArgument("condition.where", "cannot be narrowed by time")
    if not where:
        raise InvalidArgument("condition.where", "must name types, tags or streams")
    check_number("condition.after", condition.after)


def payload_array(payload: PayloadType, raw: bytes) -> BinaryArray:
    """Return one encoded payload as an array of one."""
    return _PAYLOAD_ARRAYS[payload].of_wire(bytes_part(_payload_prefix(payload) + raw), 1)


def _payload_prefix(payload: PayloadType) -> bytes:
    # jsonb's binary form has a version byte before the text.
    return b"\1" if payload == "jsonb" else b""


def expected_code(expected: Expected) -> int:
    """Return how the SQL functions are told an expected version."""
    if isinstance(expected, int):
        return expected
    return -1 if expected is ANY else -2 if expected is NO_STREAM else -3


def _type_part(name: object) -> bytes:
    # Most events of a program have one of few types.
    return _known_type_part(name) if type(name) is str else text_part(check_name("event.type", name))


@functools.lru_cache(maxsize=4096)
def _known_type_part(name: str) -> bytes:
    return text_part(check_name("event.type", name))


def _nullable(
    values: Sequence[Value | None], encode: Callable[[Sequence[Value]], Sequence[bytes]]
) -> Sequence[bytes] | None:
    """Return the elements of a column in which values may be missing, None when all are."""
    if values.count(None) == len(values):
        return None
    given = [value for value in values if value is not None]
    parts = iter(encode(given))
    return [NULL_PART if value is None else next(parts) for value in values]


def _id_part(argument: str, value: object) -> bytes:
    return b"\0\0\0\x10" + check_uuid(argument, value).int.to_bytes(16)


def _id_parts(argument: str, ids: Sequence[uuid.UUID]) -> list[bytes]:
    if set(map(type, ids)) != {uuid.UUID}:
        for value in ids:
            check_uuid(argument, value)
    # What uuid_part does, without a call for each.
    return [b"\0\0\0\x10" + value.int.to_bytes(16) for value in ids]


_causation_parts = partial(_id_parts, "event.causation_id")
_correlation_parts = partial(_id_parts, "event.correlation_id")


def _tags_parts(tags: Sequence[Sequence[str]]) -> list[bytes]:
    return [_tags_part(each) for each in tags]


def _tags_part(tags: Sequence[str]) -> bytes:
    if isinstance(tags, str) or not isinstance(tags, Sequence):
        raise InvalidArgument("event.tags", "must be a tuple of words")
    if len(tags) > 100:
        raise InvalidArgument("event.tags", f"{len(tags)} tags, the limit is 100")
    checked = dict.fromkeys([check_name("event.tags", tag) for tag in tags])
    quoted = ['"' + tag.replace("\\", "\\\\").replace('"', '\\"') + '"' for tag in checked]
    return text_part("{" + ",".join(quoted) + "}")


def _versions_column(versions: Sequence[int]) -> Sequence[bytes] | None:
    if versions.count(1) == len(versions):
        return None
    return [_version_part(version) for version in versions]


def _version_part(version: object) -> bytes:
    if type(version) is not int or not 1 <= version <= 32767:
        raise InvalidArgument("event.schema_version", "must be a whole number from 1 to 32767")
    return ((4 << 32) + version).to_bytes(8)


def check_distinct(stream: str, ids: Sequence[uuid.UUID]) -> None:
    """Raise DuplicateEvent when an id stands twice among those of one call."""
    if len(set(ids)) != len(ids):
        seen: set[uuid.UUID] = set()
        raise DuplicateEvent(stream, next(id for id in ids if id in seen or seen.add(id)))  # type: ignore[func-returns-value]
