"""Deleting: softly, for good, taken back, and the beginning of a stream."""

from __future__ import annotations

import pytest

from headwater.storage.errors import (
    HardDeletesDisabled,
    InvalidArgument,
    ReservedStream,
    SnapshotNotFound,
    StreamDeleted,
    StreamExists,
    StreamNotFound,
    WrongExpectedVersion,
)
from headwater.storage.model import ALL, ANY, NO_STREAM, STREAM_EXISTS, Expected, Snapshot
from headwater.storage.store import EventStore
from tests.contract.event_store.conftest import Transaction, undone
from tests.plugins.events import events

EXPECTATIONS: list[tuple[int, Expected, type[Exception] | None]] = [
    (0, ANY, StreamNotFound),
    (0, STREAM_EXISTS, StreamNotFound),
    (0, NO_STREAM, StreamNotFound),
    (0, 0, StreamNotFound),
    (0, 1, WrongExpectedVersion),
    (3, ANY, None),
    (3, STREAM_EXISTS, None),
    (3, 3, None),
    (3, NO_STREAM, StreamExists),
    (3, 0, WrongExpectedVersion),
    (3, 2, WrongExpectedVersion),
    (3, 4, WrongExpectedVersion),
]
"""How many events the stream has, what is expected, and how the delete is refused."""

BOTH = pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])


@BOTH
@pytest.mark.parity("T207", "T208", "T209", "T210", "T211", "T259", "T260", "T261", "T262", "T263", "E2")
async def test_an_expected_version_decides(store: EventStore, hard: bool) -> None:
    for there, expected, outcome in EXPECTATIONS:
        stream = f"s-{there}-{expected}"
        if there:
            await store.append(stream, events(there))
        if outcome is None:
            await store.delete_stream(stream, expected, hard=hard)
            with pytest.raises(StreamNotFound if hard else StreamDeleted):
                await store.read(stream)
        else:
            with pytest.raises(outcome) as refused:
                await store.delete_stream(stream, expected, hard=hard)
            assert type(refused.value) is outcome


@BOTH
@pytest.mark.parity("T216", "T267")
async def test_the_store_wide_order_cannot_be_deleted(store: EventStore, hard: bool) -> None:
    with pytest.raises(ReservedStream):
        await store.delete_stream(ALL, hard=hard)


@pytest.mark.parity("T264", "T266", "T275", "T270", "T271", "T214")
async def test_a_soft_delete_hides_the_stream_and_keeps_its_events(store: EventStore) -> None:
    await store.append("s", events(3))
    await store.link("links", (await store.read("s"))[:2])
    await store.delete_stream("s")
    with pytest.raises(StreamDeleted):
        await store.delete_stream("s")
    with pytest.raises(StreamDeleted):
        await store.append("s", events(1))
    with pytest.raises(StreamDeleted):
        await store.link("s", await store.read("links"))
    with pytest.raises(StreamDeleted):
        await store.stream_info("s")
    assert [event.version for event in await store.read_all()] == [1, 2, 3]
    assert [event.version for event in await store.read("links")] == [1, 2]


@pytest.mark.parity("T213", "T214", "T215", "T217", "T275", "T224", "E27")
async def test_a_hard_delete_removes_the_events_and_every_link_to_them(store: EventStore) -> None:
    await store.append("s", events(3))
    await store.append("other", events(2))
    before = await store.stream_info("s")
    await store.link("links", await store.read("s"))
    await store.delete_stream("s", hard=True)
    for call in (store.read("s"), store.stream_info("s"), store.delete_stream("s", hard=True)):
        with pytest.raises(StreamNotFound):
            await call
    assert await store.read("links") == []
    assert (await store.stream_info("links")).version == 3
    assert [(event.stream, event.position) for event in await store.read_all()] == [("other", 4), ("other", 5)]
    assert await store.head() == 5
    result = await store.append("s", events(1), NO_STREAM)
    assert (result.first_version, result.first_position) == (1, 6)
    assert (await store.stream_info("s")).stream_id != before.stream_id


@pytest.mark.parity("L8")
async def test_a_hard_delete_of_a_stream_of_links_leaves_the_originals(store: EventStore) -> None:
    await store.append("s", events(3))
    await store.link("links", (await store.read("s"))[:2])
    await store.append("links", events(1))
    await store.delete_stream("links", hard=True)
    assert [event.version for event in await store.read("s")] == [1, 2, 3]
    assert [event.position for event in await store.read_all()] == [1, 2, 3]


@pytest.mark.parity("L33", "T212")
async def test_a_soft_deleted_stream_can_be_deleted_for_good(store: EventStore) -> None:
    await store.append("s", events(2))
    await store.delete_stream("s")
    with pytest.raises(WrongExpectedVersion):
        await store.delete_stream("s", 1, hard=True)
    await store.delete_stream("s", 2, hard=True)
    assert await store.read_all() == []


@pytest.mark.parity("L33")
async def test_a_soft_delete_can_be_taken_back(store: EventStore) -> None:
    await store.append("s", events(2))
    await store.delete_stream("s")
    await store.undelete_stream("s")
    await store.undelete_stream("s")
    assert (await store.append("s", events(1), 2)).last_version == 3
    assert (await store.stream_info("s")).deleted_at is None
    with pytest.raises(StreamNotFound):
        await store.undelete_stream("unknown")
    with pytest.raises(ReservedStream):
        await store.undelete_stream(ALL)


@pytest.mark.parity("T225")
async def test_hard_deletes_are_off_unless_asked_for(careful_store: EventStore) -> None:
    await careful_store.append("s", events(2))
    with pytest.raises(HardDeletesDisabled):
        await careful_store.delete_stream("s", hard=True)
    with pytest.raises(HardDeletesDisabled):
        await careful_store.truncate_stream("s", 2)
    assert len(await careful_store.read("s")) == 2
    await careful_store.delete_stream("s")


@pytest.mark.parity("L6")
async def test_a_hard_delete_takes_the_snapshots_along(store: EventStore) -> None:
    await store.append("s", events(1))
    for source in ("s", "other"):
        await store.record_snapshot(Snapshot(source, 1, "State", {}))
    await store.delete_stream("s", hard=True)
    with pytest.raises(SnapshotNotFound):
        await store.read_snapshot("s")
    await store.read_snapshot("other")


@pytest.mark.parity("L33")
async def test_the_beginning_of_a_stream_can_be_removed(store: EventStore) -> None:
    await store.append("other", events(2))
    await store.append("s", events(2))
    await store.link("s", await store.read("other"))
    await store.append("s", events(2))
    await store.link("links", await store.read("s"))
    assert await store.truncate_stream("s", 4) == 2
    assert [event.number for event in await store.read("s")] == [4, 5, 6]
    assert [event.number for event in await store.read("links")] == [3, 4, 5, 6]
    assert len(await store.read("other")) == 2
    info = await store.stream_info("s")
    assert (info.version, info.truncated_before) == (6, 4)
    assert await store.truncate_stream("s", 2) == 0
    assert (await store.stream_info("s")).truncated_before == 4
    assert await store.truncate_stream("s", 99) == 2
    assert (await store.stream_info("s")).truncated_before == 7
    with pytest.raises(StreamExists):
        await store.append("s", events(1), NO_STREAM)
    assert (await store.append("s", events(1), 6)).last_version == 7
    assert [event.number for event in await store.read("s")] == [7]


async def test_what_cannot_be_truncated_is_refused(store: EventStore) -> None:
    await store.append("s", events(1))
    with pytest.raises(StreamNotFound):
        await store.truncate_stream("unknown", 2)
    with pytest.raises(ReservedStream):
        await store.truncate_stream(ALL, 2)
    with pytest.raises(InvalidArgument):
        await store.truncate_stream("s", -1)
    await store.delete_stream("s")
    with pytest.raises(StreamDeleted):
        await store.truncate_stream("s", 2)


@BOTH
async def test_a_delete_in_a_transaction_that_rolls_back_never_was(
    store: EventStore, transaction: Transaction, hard: bool
) -> None:
    await store.append("s", events(2))
    async with undone(transaction) as conn:
        await store.delete_stream("s", hard=hard, conn=conn)
        with pytest.raises(StreamNotFound if hard else StreamDeleted):
            await store.read("s", conn=conn)
        assert len(await store.read("s")) == 2
    assert len(await store.read("s")) == 2


async def test_a_removed_event_can_be_stored_again(store: EventStore) -> None:
    batch = events(2)
    await store.append("s", batch)
    await store.delete_stream("s", hard=True)
    result = await store.append("s", batch)
    assert (result.first_position, result.repeated) == (3, False)
