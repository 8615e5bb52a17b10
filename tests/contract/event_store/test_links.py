"""Links: stored events in a further stream."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from headwater.storage.errors import (
    AlreadyLinked,
    DuplicateEvent,
    EventNotFound,
    InvalidArgument,
    ReservedStream,
    StreamDeleted,
    StreamExists,
    StreamMissing,
    StreamNotFound,
    WrongExpectedVersion,
)
from headwater.storage.model import ALL, ANY, NO_STREAM, STREAM_EXISTS, Expected, RecordedEvent
from headwater.storage.store import EventStore
from tests.contract.event_store.conftest import Transaction, undone
from tests.plugins.events import events

EXPECTATIONS: list[tuple[int, Expected, type[WrongExpectedVersion] | None]] = [
    (0, ANY, None),
    (0, 0, None),
    (0, NO_STREAM, None),
    (0, STREAM_EXISTS, StreamMissing),
    (0, 1, WrongExpectedVersion),
    (2, ANY, None),
    (2, 2, None),
    (2, STREAM_EXISTS, None),
    (2, NO_STREAM, StreamExists),
    (2, 1, WrongExpectedVersion),
    (2, 3, WrongExpectedVersion),
]
"""How many events the target has, what is expected, and how the link is refused."""


async def stored(store: EventStore, stream: str, number: int) -> list[RecordedEvent]:
    """Store so many events and return them."""
    await store.append(stream, events(number))
    return await store.read(stream)


@pytest.mark.parity("T149")
@pytest.mark.parity("T044", "T045", "T147", "T148", "T235")
async def test_a_link_shows_the_original_under_a_number_of_the_target(store: EventStore) -> None:
    originals = await stored(store, "source", 3)
    await store.append("target", events(1))
    assert await store.link("target", [originals[0], originals[1].id, originals[2]]) == 4
    found = await store.read("target")
    assert [event.number for event in found] == [1, 2, 3, 4]
    assert [event.version for event in found] == [1, 1, 2, 3]
    assert [event._replace(number=original.number) for event, original in zip(found[1:], originals, strict=True)] == (
        originals
    )
    assert [event.number for event in await store.read("target", backward=True, limit=2)] == [4, 3]
    assert [event.number async for event in store.stream("target", page_size=1)] == [1, 2, 3, 4]


async def test_own_events_and_links_share_one_numbering(store: EventStore) -> None:
    originals = await stored(store, "source", 2)
    await store.append("target", events(1))
    await store.link("target", originals[:1])
    await store.append("target", events(1), 2)
    await store.link("target", originals[1:], 3)
    found = await store.read("target")
    assert [(event.number, event.stream, event.version) for event in found] == [
        (1, "target", 1),
        (2, "source", 1),
        (3, "target", 3),
        (4, "source", 2),
    ]
    page = await store.read_page("target", 1, 2)
    assert ([event.number for event in page.events], page.read_to, page.head) == ([2, 3], 3, 4)


@pytest.mark.parity("T301")
async def test_links_add_nothing_to_the_store_wide_order(store: EventStore) -> None:
    originals = await stored(store, "source", 3)
    await store.link("target", originals)
    assert await store.head() == 3
    assert [event.stream for event in await store.read_all()] == ["source"] * 3


@pytest.mark.parity("E17")
async def test_a_link_to_a_link_keeps_the_original(store: EventStore) -> None:
    await store.link("first", await stored(store, "source", 2))
    await store.link("second", await store.read("first"))
    assert [(event.stream, event.version, event.number) for event in await store.read("second")] == [
        ("source", 1, 1),
        ("source", 2, 2),
    ]


@pytest.mark.parity("T153")
async def test_an_event_can_be_linked_into_several_streams(store: EventStore) -> None:
    originals = await stored(store, "source", 2)
    for target in ("one", "two"):
        assert await store.link(target, originals) == 2
        assert [event.id for event in await store.read(target)] == [event.id for event in originals]


@pytest.mark.parity("T239", "T152", "E17")
async def test_an_event_stands_in_a_stream_at_most_once(store: EventStore) -> None:
    one, two = await stored(store, "source", 2)
    await store.link("target", [one])
    for stream, batch, says in (
        ("target", [two, one], f"event {one.id} is in stream 'target' already, itself or by a link"),
        ("target", [two, two], f"event {two.id} is to be linked into 'target' twice"),
        ("source", [one], f"event {one.id} is in stream 'source' already, itself or by a link"),
    ):
        with pytest.raises(AlreadyLinked, match=says) as refused:
            await store.link(stream, batch)
        assert isinstance(refused.value, DuplicateEvent)
        assert (refused.value.stream, refused.value.event_id) == (stream, batch[-1].id)
        assert refused.value.named_twice == (batch == [two, two])
    assert [event.id for event in await store.read("target")] == [one.id]
    assert (await store.stream_info("target")).version == 1


@pytest.mark.parity("T150", "T238", "L9")
async def test_an_unknown_id_refuses_the_whole_link(store: EventStore) -> None:
    [known] = await stored(store, "source", 1)
    unknown = uuid.uuid4()
    with pytest.raises(EventNotFound) as refused:
        await store.link("target", [known.id, unknown])
    assert refused.value.event_id == unknown
    with pytest.raises(StreamNotFound):
        await store.read("target")


@pytest.mark.parity("T236", "T237")
async def test_an_expected_version_decides(store: EventStore) -> None:
    originals = await stored(store, "source", 1)
    for there, expected, outcome in EXPECTATIONS:
        target = f"target-{there}-{expected}"
        if there:
            await store.append(target, events(there))
        if outcome is None:
            assert await store.link(target, originals, expected) == there + 1
        else:
            with pytest.raises(WrongExpectedVersion) as refused:
                await store.link(target, originals, expected)
            assert (type(refused.value), refused.value.actual) == (outcome, there or None)


@pytest.mark.parity("L9")
async def test_of_concurrent_links_with_one_expected_version_one_succeeds(store: EventStore) -> None:
    originals = await stored(store, "source", 8)
    outcomes = await asyncio.gather(*(store.link("target", [event], 0) for event in originals), return_exceptions=True)
    assert outcomes.count(1) == 1
    assert [type(outcome) for outcome in outcomes].count(WrongExpectedVersion) == 7


@pytest.mark.parity("L9", "T151")
async def test_concurrent_links_to_a_new_stream_all_succeed_when_nothing_is_expected(store: EventStore) -> None:
    originals = await stored(store, "source", 8)
    versions = await asyncio.gather(*(store.link("target", [event]) for event in originals))
    assert sorted(versions) == list(range(1, 9))
    again = await asyncio.gather(*(store.link("target", originals) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in again] == [AlreadyLinked] * 3


@pytest.mark.parity("T151")
async def test_of_concurrent_links_of_the_same_events_one_succeeds(store: EventStore) -> None:
    originals = await stored(store, "source", 3)
    outcomes = await asyncio.gather(*(store.link("target", originals) for _ in range(5)), return_exceptions=True)
    assert outcomes.count(3) == 1
    assert [type(outcome) for outcome in outcomes].count(AlreadyLinked) == 4


@pytest.mark.parity("T046", "L41")
async def test_what_can_never_be_linked_is_refused(store: EventStore) -> None:
    originals = await stored(store, "source", 1)
    with pytest.raises(ReservedStream):
        await store.link(ALL, originals)
    for bad in ([], None, "id", originals[0], ["id"], [1], [None], {originals[0].id}):
        with pytest.raises(InvalidArgument):
            await store.link("target", bad)  # type: ignore[arg-type]
    await store.append("gone", events(1))
    await store.delete_stream("gone")
    with pytest.raises(StreamDeleted):
        await store.link("gone", originals)


@pytest.mark.parity("T047")
async def test_a_link_in_a_transaction_that_rolls_back_never_was(store: EventStore, transaction: Transaction) -> None:
    originals = await stored(store, "source", 2)
    async with undone(transaction) as conn:
        assert await store.link("target", originals, conn=conn) == 2
        assert len(await store.read("target", conn=conn)) == 2
    with pytest.raises(StreamNotFound):
        await store.read("target")
