"""Random operations on a store, as values: what was done, and what it answered."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

from hypothesis import strategies as st

from headwater.storage.errors import HeadwaterError
from headwater.storage.model import (
    ALL,
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    AppendCondition,
    AppendResult,
    Expected,
    Filter,
    NewEvent,
    RecordedEvent,
    StreamAppend,
)
from headwater.storage.store import EventStore

Call: TypeAlias = Callable[[EventStore, Any], Awaitable[Any]]
"""A call of the store, given the store and a connection or None."""


@dataclass(frozen=True)
class Operation:
    """One call, with the words for it that a failing example shows."""

    words: str
    call: Call

    def __repr__(self) -> str:
        return self.words


STREAMS = ("a-1", "a-2", "b-1", "links")
TYPES = ("Made", "Moved")

streams = st.sampled_from(STREAMS)
expected_versions: st.SearchStrategy[Expected] = st.one_of(
    st.sampled_from([ANY, ANY, ANY, NO_STREAM, STREAM_EXISTS]), st.integers(0, 6)
)
# Few ids, so that repeats and duplicates come up often.
ids = st.integers(0, 40).map(lambda number: uuid.UUID(int=number + 1))
id_lists = st.lists(ids, min_size=1, max_size=3)
starts = st.one_of(st.none(), st.integers(-2, 12))


def new_event(id: uuid.UUID) -> NewEvent:
    """Return the event of an id: the same one each time."""
    number = id.int
    return NewEvent(TYPES[number % 2], {"n": number}, id=id, tags=("odd",) if number % 2 else ())


@st.composite
def appends(draw: st.DrawFn) -> Operation:
    stream, batch, expected = draw(streams), draw(id_lists), draw(expected_versions)
    return Operation(
        f"append({stream}, {[id.int for id in batch]}, {expected})",
        lambda store, conn: store.append(stream, [new_event(id) for id in batch], expected, conn=conn),
    )


@st.composite
def appends_to_many(draw: st.DrawFn) -> Operation:
    parts = [
        StreamAppend(stream, [new_event(id) for id in draw(id_lists)], draw(expected_versions))
        for stream in draw(st.lists(streams, min_size=1, max_size=3, unique=True))
    ]
    return Operation(f"append_to_many({parts})", lambda store, conn: store.append_to_many(parts, conn=conn))


@st.composite
def conditional_appends(draw: st.DrawFn) -> Operation:
    stream, batch, after = draw(streams), draw(id_lists), draw(st.integers(0, 12))
    where = draw(st.sampled_from([Filter(types=("Made",)), Filter(tags=("odd",)), Filter(streams=("a-1",))]))
    condition = AppendCondition(where, after)
    return Operation(
        f"append({stream}, {[id.int for id in batch]}, {condition})",
        lambda store, conn: store.append(stream, [new_event(id) for id in batch], condition=condition, conn=conn),
    )


@st.composite
def links(draw: st.DrawFn) -> Operation:
    stream, batch, expected = draw(streams), draw(id_lists), draw(expected_versions)
    return Operation(
        f"link({stream}, {[id.int for id in batch]}, {expected})",
        lambda store, conn: store.link(stream, batch, expected, conn=conn),
    )


@st.composite
def deletes(draw: st.DrawFn) -> Operation:
    stream, expected, hard = draw(streams), draw(expected_versions), draw(st.booleans())
    return Operation(
        f"delete({stream}, {expected}, hard={hard})",
        lambda store, conn: store.delete_stream(stream, expected, hard=hard, conn=conn),
    )


@st.composite
def undeletes(draw: st.DrawFn) -> Operation:
    stream = draw(streams)
    return Operation(f"undelete({stream})", lambda store, conn: store.undelete_stream(stream, conn=conn))


@st.composite
def truncations(draw: st.DrawFn) -> Operation:
    stream, before = draw(streams), draw(st.integers(0, 8))
    return Operation(
        f"truncate({stream}, {before})", lambda store, conn: store.truncate_stream(stream, before, conn=conn)
    )


@st.composite
def reads(draw: st.DrawFn) -> Operation:
    stream, start = draw(st.sampled_from([*STREAMS, ALL])), draw(starts)
    limit, backward = draw(st.integers(0, 8)), draw(st.booleans())
    return Operation(
        f"read({stream}, {start}, {limit}, {backward})",
        lambda store, conn: store.read(stream, start=start, limit=limit, backward=backward, conn=conn),
    )


@st.composite
def pages(draw: st.DrawFn) -> Operation:
    source, after, limit = draw(st.sampled_from([*STREAMS, ALL])), draw(st.integers(0, 12)), draw(st.integers(1, 5))
    where = draw(st.sampled_from([Filter(), Filter(types=("Moved",)), Filter(categories=("a",), tags=("odd",))]))
    return Operation(
        f"follow({source}, {after}, {limit}, {where})",
        lambda store, conn: follow(store, source, after, limit, where, conn),
    )


async def follow(
    store: EventStore, source: str, after: int, limit: int, where: Filter, conn: Any
) -> list[RecordedEvent]:
    """Read page after page to the end: how far each page looks is a store's own affair."""
    found: list[RecordedEvent] = []
    while True:
        page = await store.read_page(source, after, limit, where=where, conn=conn)
        assert len(page.events) <= limit
        found += page.events
        if page.read_to == page.head:
            return found
        assert page.read_to > after
        after = page.read_to


@st.composite
def listings(draw: st.DrawFn) -> Operation:
    stream = draw(st.sampled_from([*STREAMS, ALL]))
    return Operation(f"stream_info({stream})", lambda store, conn: store.stream_info(stream, conn=conn))


operations = st.one_of(
    appends(),
    appends(),
    appends(),
    appends_to_many(),
    conditional_appends(),
    links(),
    links(),
    deletes(),
    undeletes(),
    truncations(),
    reads(),
    reads(),
    pages(),
    listings(),
)


@dataclass(frozen=True)
class Together:
    """Operations in one transaction, and whether it commits."""

    operations: list[Operation]
    commits: bool


steps = st.one_of(operations, operations, st.builds(Together, st.lists(operations, max_size=5), st.booleans()))


class Undone(Exception):
    """Makes a transaction roll back."""


async def answers(
    store: EventStore, step: Operation | Together, transaction: Callable[[], AbstractAsyncContextManager[Any]]
) -> list[Any]:
    """Do a step; return what it answered, without what differs between two stores that do the same."""
    if isinstance(step, Operation):
        return [await _answer(store, step, None)]
    found = []
    try:
        async with transaction() as conn:
            found = [await _answer(store, each, conn) for each in step.operations]
            if not step.commits:
                raise Undone
    except Undone:
        pass
    return found


async def _answer(store: EventStore, operation: Operation, conn: Any) -> Any:
    try:
        return comparable(await operation.call(store, conn))
    except HeadwaterError as error:
        return type(error).__name__, sorted(error.fields.items(), key=str)


def comparable(value: Any) -> Any:
    """Leave out times, and the ids that tell incarnations apart: they may leave numbers out."""
    if isinstance(value, RecordedEvent):
        return (value.position, value.stream, value.version, value.number, value.id, value.data, value.tags)
    if isinstance(value, AppendResult):
        return value
    if isinstance(value, list | tuple):
        return [comparable(each) for each in value]
    if hasattr(value, "truncated_before"):
        return value.name, value.version, value.status, value.truncated_before
    return value
