"""Changes of the in-memory state, with the outcomes that the Postgres store would give.

Each function first finds out whether the change is refused, and changes the state only when it is not.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from headwater.storage.codec import Codec, type_of
from headwater.storage.errors import (
    AlreadyLinked,
    AppendError,
    ConditionFailed,
    DuplicateEvent,
    EventNotFound,
    StreamDeleted,
    StreamExists,
    StreamMissing,
    StreamNotFound,
    WrongExpectedVersion,
)
from headwater.storage.filters import matches
from headwater.storage.memory.state import State
from headwater.storage.model import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    AppendCondition,
    AppendResult,
    Expected,
    NewEvent,
    RecordedEvent,
    StreamAppend,
)


def append(
    state: State,
    appends: Sequence[StreamAppend],
    created_at: datetime | None,
    condition: AppendCondition | None,
    codec: Codec,
) -> list[AppendResult]:
    """Append to several streams, all or none; a repeat gives the first results."""
    stored = next(((a.stream, e.id) for a in appends for e in a.events if e.id in state.by_id), None)
    if stored is not None:
        if repeated := _repeated(state, appends):
            return repeated
        raise DuplicateEvent(*stored)
    if refusal := _refusal(state, appends, condition):
        raise refusal

    now = max(state.head_time, datetime.now(UTC))
    time = now if created_at is None else created_at
    state.head_time = max(state.head_time, min(time, now))
    return [_write(state, each, time, codec) for each in appends]


def _refusal(
    state: State, appends: Sequence[StreamAppend], condition: AppendCondition | None
) -> AppendError | StreamDeleted | None:
    if condition is not None:
        for event in state.events.values():
            if event.position > condition.after and matches(condition.where, event):
                return ConditionFailed(condition.after, event.position)
    for each in appends:
        if refused := refused_version(state, each.stream, each.expected_version):
            return refused
    return None


def refused_version(state: State, name: str, expected: Expected) -> WrongExpectedVersion | StreamDeleted | None:
    """Return why a stream cannot be written to under an expected version, None when it can."""
    stream = state.streams.get(name)
    if stream is not None and stream.deleted_at is not None:
        return StreamDeleted(name)
    actual = None if stream is None else stream.version
    if expected is ANY or expected == (actual or 0):
        return None
    if expected is NO_STREAM:
        return StreamExists(name, expected, actual) if actual else None
    if expected is STREAM_EXISTS:
        return StreamMissing(name, expected, actual) if stream is None else None
    return WrongExpectedVersion(name, expected, actual)


def _repeated(state: State, appends: Sequence[StreamAppend]) -> list[AppendResult] | None:
    results = []
    for each in appends:
        first = state.by_id.get(each.events[0].id)
        if first is None or first.stream != each.stream:
            return None
        before, expected = first.version - 1, each.expected_version
        if before != expected if isinstance(expected, int) else expected is NO_STREAM and before:
            return None
        for more, event in enumerate(each.events):
            place = state.by_id.get(event.id)
            wanted = (each.stream, first.version + more, first.position + more)
            if place is None or (place.stream, place.version, place.position) != wanted:
                return None
        results.append(_result(each, first.version, first.position, repeated=True))
    return results


def _result(append: StreamAppend, version: int, position: int, *, repeated: bool = False) -> AppendResult:
    more = len(append.events) - 1
    return AppendResult(append.stream, version, version + more, position, position + more, repeated)


def _write(state: State, append: StreamAppend, time: datetime, codec: Codec) -> AppendResult:
    stream = state.open_stream(append.stream, time)
    result = _result(append, stream.version + 1, state.head + 1)
    for event in append.events:
        state.add(_recorded(event, append.stream, stream.version + 1, state.head + 1, time, codec))
    return result


def _recorded(event: NewEvent, stream: str, version: int, position: int, time: datetime, codec: Codec) -> RecordedEvent:
    name = event.type or type_of(event.data)
    return RecordedEvent(
        position,
        stream,
        version,
        position,
        event.id,
        name,
        codec.encode(name, event.data),
        None if event.metadata is None else codec.encode(name, event.metadata),
        event.causation_id,
        event.correlation_id,
        time,
        list(dict.fromkeys(event.tags or ())) or None,
        event.schema_version,
    )


def link(state: State, name: str, ids: Sequence[uuid.UUID], expected: Expected) -> int:
    """Put stored events into a further stream, all or none; returns its version."""
    if refused := refused_version(state, name, expected):
        raise refused
    for id in ids:
        if id not in state.by_id:
            raise EventNotFound(id)
    there = set(state.streams[name].events.positions) if name in state.streams else set()
    for id in ids:
        if state.by_id[id].position in there or state.by_id[id].stream == name:
            raise AlreadyLinked(name, id)
    stream = state.open_stream(name, datetime.now(UTC))
    for id in ids:
        stream.version += 1
        stream.events.add(stream.version, state.by_id[id].position)
    return stream.version


def delete_stream(state: State, name: str, expected: Expected, hard: bool) -> None:
    """Delete a stream softly or for good."""
    stream = state.streams.get(name)
    if stream is None:
        if isinstance(expected, int) and expected > 0:
            raise WrongExpectedVersion(name, expected)
        raise StreamNotFound(name)
    if stream.deleted_at is not None and not hard:
        raise StreamDeleted(name)
    if not isinstance(expected, int):
        if expected is NO_STREAM and stream.version:
            raise StreamExists(name, expected, stream.version)
    elif expected != stream.version:
        raise WrongExpectedVersion(name, expected, stream.version)
    if hard:
        state.remove_events(name, None)
        state.snapshots.pop(name, None)
        del state.streams[name]
    else:
        stream.deleted_at = datetime.now(UTC)


def undelete_stream(state: State, name: str) -> None:
    """Take a soft delete back."""
    if name not in state.streams:
        raise StreamNotFound(name)
    state.streams[name].deleted_at = None


def truncate_stream(state: State, name: str, before: int) -> int:
    """Remove what stands below a version; returns how many own events went."""
    stream = state.live(name)
    removed = state.remove_events(name, before)
    stream.events.keep(lambda number, _: number >= before)
    stream.truncated_before = max(stream.truncated_before, min(before, stream.version + 1))
    return removed
