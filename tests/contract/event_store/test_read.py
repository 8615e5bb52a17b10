"""Reading: forward, backward, lazily, by the page, filtered; and every edge of a range."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headwater.storage.errors import InvalidArgument, StreamDeleted, StreamNotFound
from headwater.storage.model import ALL, MAX_BIGINT, EventPage, Filter, NewEvent, RecordedEvent
from headwater.storage.store import EventStore
from tests.contract.event_store.conftest import Transaction
from tests.plugins.events import events

RANGES: list[tuple[int | None, int, bool, list[int]]] = [
    (None, 1000, False, [1, 2, 3, 4, 5]),
    (0, 1000, False, [1, 2, 3, 4, 5]),
    (1, 2, False, [1, 2]),
    (-7, 2, False, [1, 2]),
    (4, 1000, False, [4, 5]),
    (6, 1000, False, []),
    (MAX_BIGINT, MAX_BIGINT, False, []),
    (1, 0, False, []),
    (None, 1000, True, [5, 4, 3, 2, 1]),
    (None, 2, True, [5, 4]),
    (3, 2, True, [3, 2]),
    (99, 2, True, [5, 4]),
    (MAX_BIGINT, MAX_BIGINT, True, [5, 4, 3, 2, 1]),
    (0, 1000, True, []),
    (-1, 1000, True, []),
    (5, 0, True, []),
    (-MAX_BIGINT - 1, 10, False, [1, 2, 3, 4, 5]),
]
"""Start, limit, backward, and the numbers that are read of five."""

LAZY_RANGES: list[tuple[int | None, bool, list[int]]] = [
    (None, False, [1, 2, 3]),
    (2, False, [2, 3]),
    (4, False, []),
    (None, True, [3, 2, 1]),
    (2, True, [2, 1]),
    (0, True, []),
]
"""Start, backward, and the numbers that are read of three."""


def numbers(found: object) -> list[int]:
    """The numbers of the events in what is being read."""
    assert isinstance(found, list)
    return [event.number for event in found]


@pytest.mark.parity("T049", "T050", "T051", "T052", "T053", "T165", "T166", "T169", "T170", "E12")
@pytest.mark.parity("T243", "T244", "T194")
async def test_a_range_is_read(store: EventStore) -> None:
    await store.append("s", events(5))
    for start, limit, backward, expected in RANGES:
        for source in ("s", ALL):
            found = await store.read(source, start=start, limit=limit, backward=backward)
            assert numbers(found) == expected, (source, start, limit, backward)
        found = await store.read_all(start=start, limit=limit, backward=backward)
        assert numbers(found) == expected, (start, limit, backward)


@pytest.mark.parity("T195", "T196", "T197", "T199", "T200", "T201", "T202", "T245", "T246", "T247")
@pytest.mark.parity("T248", "T249", "T250", "T251", "T252", "T253", "T254", "T052", "T053")
async def test_a_lazy_read_gives_the_same_in_pages_of_any_size(store: EventStore) -> None:
    await store.append("s", events(3))
    for page_size, (start, backward, expected) in itertools.product((1, 2, 3, 1000), LAZY_RANGES):
        for lazy in (
            store.stream("s", start=start, backward=backward, page_size=page_size),
            store.stream(ALL, start=start, backward=backward, page_size=page_size),
            store.stream_all(start=start, backward=backward, page_size=page_size),
        ):
            assert [event.number async for event in lazy] == expected, (start, backward, page_size)


@pytest.mark.parity("T241", "T242", "T167", "T160")
async def test_an_unknown_stream_is_not_found(store: EventStore) -> None:
    with pytest.raises(StreamNotFound):
        await store.read("unknown")
    with pytest.raises(StreamNotFound):
        await anext(aiter(store.stream("unknown")))
    assert await store.read(ALL) == []
    assert await store.read_all() == []
    assert [event async for event in store.stream_all(backward=True)] == []
    assert await store.head() == 0


@pytest.mark.parity("T265")
async def test_a_deleted_stream_says_so(store: EventStore) -> None:
    await store.append("s", events(2))
    await store.delete_stream("s")
    for backward in (False, True):
        with pytest.raises(StreamDeleted):
            await store.read("s", backward=backward)
        with pytest.raises(StreamDeleted):
            await anext(aiter(store.stream("s", backward=backward)))


@pytest.mark.parity("T161")
async def test_an_emptied_stream_reads_as_empty(store: EventStore) -> None:
    await store.append("s", events(2))
    await store.truncate_stream("s", 3)
    assert await store.read("s") == []
    assert await store.read("s", backward=True) == []
    assert [event async for event in store.stream("s")] == []


async def test_pages_of_the_store_wide_order_follow_each_other(store: EventStore) -> None:
    await store.append("s", events(5))
    first = await store.read_page(ALL, 0, 2)
    assert (numbers(list(first.events)), first.read_to, first.head, first.stream_id) == ([1, 2], 2, 5, None)
    last = await store.read_page(ALL, 2, 100)
    assert (numbers(list(last.events)), last.read_to, last.head) == ([3, 4, 5], 5, 5)
    end = await store.read_page(ALL, 5, 100)
    assert (list(end.events), end.read_to, end.head) == ([], 5, 5)
    assert (await store.read_page(ALL, 99, 100)).read_to == 99


async def test_pages_of_a_stream_name_its_incarnation(store: EventStore) -> None:
    nothing = await store.read_page("s", 0, 10)
    assert nothing == EventPage((), 0, 0, absent="missing")
    await store.append("s", events(3))
    page = await store.read_page("s", 1, 1)
    info = await store.stream_info("s")
    assert (numbers(list(page.events)), page.read_to, page.head, page.stream_id) == ([2], 2, 3, info.stream_id)
    assert (await store.read_page("s", 3, 10)).stream_id == info.stream_id
    await store.delete_stream("s")
    deleted = await store.read_page("s", 1, 10)
    assert (list(deleted.events), deleted.read_to, deleted.head, deleted.absent) == ([], 1, 1, "deleted")
    await store.delete_stream("s", hard=True)
    await store.append("s", events(1))
    assert (await store.read_page("s", 0, 10)).stream_id not in (None, info.stream_id)


@pytest.mark.parity("T198", "T203", "T222", "T223")
async def test_a_reader_passes_over_holes(store: EventStore) -> None:
    await store.append("a", events(3))
    await store.append("b", events(3))
    await store.append("c", events(1))
    await store.delete_stream("b", hard=True)
    assert [event.number async for event in store.stream_all(page_size=1)] == [1, 2, 3, 7]
    assert [event.number async for event in store.stream_all(page_size=1, backward=True)] == [7, 3, 2, 1]
    page = await store.read_page(ALL, 3, 2)
    assert (numbers(list(page.events)), page.read_to, page.head) == ([7], 7, 7)
    await store.delete_stream("c", hard=True)
    page = await store.read_page(ALL, 3, 2)
    assert (list(page.events), page.read_to, page.head) == ([], 7, 7)
    await store.append("d", events(1))
    assert numbers(await store.read_all(start=4)) == [8]


FILTERS = [
    (Filter(), [1, 2, 3, 4, 5, 6]),
    (Filter(types=("Paid",)), [2, 5]),
    (Filter(types=("Paid", "Sent", "Unknown")), [2, 5, 6]),
    (Filter(categories=("order",)), [1, 2, 3]),
    (Filter(categories=("order", "orders")), [1, 2, 3, 4]),
    (Filter(stream_prefix="order"), [1, 2, 3, 4]),
    (Filter(stream_prefix="order-"), [1, 2, 3]),
    (Filter(stream_prefix="ord_r"), []),
    (Filter(streams=("order-1", "invoice-1")), [1, 2, 5, 6]),
    (Filter(tags=("eu",)), [1, 2, 5]),
    (Filter(tags=("eu", "big")), [1, 5]),
    (Filter(tags=("eu", "us")), []),
    (Filter(types=("Paid",), tags=("big",)), [5]),
    (Filter(types=("Paid",), categories=("order",), tags=("eu",), stream_prefix="o"), [2]),
]


async def filtered(store: EventStore) -> None:
    """Store six events that differ in all that a filter can ask for."""
    await store.append("order-1", [NewEvent("Placed", tags=("eu", "big")), NewEvent("Paid", tags=("eu",))])
    await store.append("order-2", [NewEvent("Placed", tags=("us",))])
    await store.append("orders", [NewEvent("Counted")])
    await store.append("invoice-1", [NewEvent("Paid", tags=("eu", "big")), NewEvent("Sent")])


@pytest.mark.parity("L32")
async def test_a_filter_leaves_events_out(store: EventStore) -> None:
    await filtered(store)
    for where, expected in FILTERS:
        assert numbers(await store.read_all(where=where)) == expected, where
        assert numbers(await store.read_all(where=where, backward=True)) == expected[::-1], where
        assert numbers(await store.read_all(where=where, limit=1)) == expected[:1], where
        assert numbers(await store.read_all(where=where, start=3)) == [number for number in expected if number >= 3]
        assert [event.number async for event in store.stream_all(where=where, page_size=1)] == expected, where
        assert numbers(await everything_after(store, 0, where)) == expected, where


async def everything_after(store: EventStore, after: int, where: Filter, limit: int = 2) -> list[RecordedEvent]:
    """Follow the pages to the end; each must advance."""
    found: list[RecordedEvent] = []
    while True:
        page = await store.read_page(ALL, after, limit, where=where)
        found += page.events
        if page.read_to == page.head:
            return found
        assert page.read_to > after
        after = page.read_to


async def test_a_filter_applies_to_the_pages_of_one_stream(store: EventStore) -> None:
    await filtered(store)
    page = await store.read_page("invoice-1", 0, 10, where=Filter(types=("Sent",)))
    assert (numbers(list(page.events)), page.read_to, page.head) == ([2], 2, 2)
    page = await store.read_page("invoice-1", 0, 10, where=Filter(tags=("us",)))
    assert (list(page.events), page.read_to) == ([], 2)


async def test_a_time_is_found_in_the_order(store: EventStore) -> None:
    day = datetime(2013, 7, 1, tzinfo=UTC)
    for number in range(4):
        await store.append(f"s-{number}", events(2), created_at=day + timedelta(days=number))
    since, until = day + timedelta(days=1), day + timedelta(days=3)
    assert numbers(await store.read_all(where=Filter(since=since, until=until))) == [3, 4, 5, 6]
    assert await store.position_at(since) == 2
    assert await store.position_at(since + timedelta(seconds=1)) == 4
    assert await store.position_at(day - timedelta(days=1)) == 0
    assert await store.position_at(day + timedelta(days=99)) == 8


async def test_a_time_is_found_although_an_import_broke_the_order_of_times(store: EventStore) -> None:
    day = datetime(2013, 7, 1, tzinfo=UTC)
    for offset in (5, 1, 3):
        await store.append("s", events(1), created_at=day + timedelta(days=offset))
    assert await store.position_at(day + timedelta(days=4)) == 0
    assert await store.position_at(day + timedelta(days=2)) == 0
    assert await store.position_at(day + timedelta(days=6)) == 3


async def test_a_read_in_a_transaction_sees_what_it_has_written(store: EventStore, transaction: Transaction) -> None:
    await store.append("s", events(1))
    async with transaction() as conn:
        await store.append("s", events(1), conn=conn)
        assert numbers(await store.read("s", conn=conn)) == [1, 2]
        assert numbers(await store.read_all(conn=conn, backward=True)) == [2, 1]
        assert (await store.read_page(ALL, 1, 10, conn=conn)).head == 2
        assert (await store.stream_info("s", conn=conn)).version == 2
        assert numbers(await store.read("s")) == [1]


@pytest.mark.parity("L41")
async def test_a_range_that_can_never_work_is_refused(store: EventStore) -> None:
    await store.append("s", events(1))
    bad_ranges: list[dict[str, Any]] = [
        {"limit": -1},
        {"limit": 2**63},
        {"start": 2**63},
        {"start": "1"},
        {"limit": None},
    ]
    for bad in bad_ranges:
        with pytest.raises(InvalidArgument):
            await store.read("s", **bad)
        with pytest.raises(InvalidArgument):
            await store.read_all(**bad)
    for page_size in (0, -1, 1.5):
        with pytest.raises(InvalidArgument):
            await anext(aiter(store.stream("s", page_size=page_size)))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument):
        await store.read_page("s", -1, 10)
    with pytest.raises(InvalidArgument):
        await store.read_page("s", 0, 0)
