"""Snapshots: saved states of a source, several of each."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from headwater.storage.errors import EncodingFailed, InvalidArgument, SnapshotNotFound
from headwater.storage.model import Snapshot
from headwater.storage.store import EventStore
from tests.contract.event_store.conftest import Transaction, undone

BAD_SNAPSHOTS: list[Any] = [
    Snapshot("", 1, "State", 1),
    Snapshot("s", -1, "State", 1),
    Snapshot("s", 2**63, "State", 1),
    Snapshot("s", 1, "\ud800", 1),
    Snapshot("s", 1, "State", 1, created_at=datetime(2020, 1, 1)),  # noqa: DTZ001
    None,
    {"source": "s"},
]


@pytest.mark.parity("T069", "T070", "T174", "T175")
async def test_a_snapshot_is_read_as_it_was_saved(store: EventStore) -> None:
    when = datetime(2013, 7, 1, 1, 2, 3, 456789, tzinfo=UTC)
    saved = Snapshot("account-1", 7, "Account", {"balance": 12.5, "naïve": "東京"}, {"by": "test"}, when)
    await store.record_snapshot(saved)
    assert await store.read_snapshot("account-1") == saved
    await store.record_snapshot(Snapshot("account-2", 0, "Account", None))
    bare = await store.read_snapshot("account-2")
    assert (bare.version, bare.data, bare.metadata) == (0, None, None)
    assert bare.created_at is not None


@pytest.mark.parity("L42")
async def test_an_older_snapshot_never_hides_a_newer_one(store: EventStore) -> None:
    for version in (5, 9, 7):
        await store.record_snapshot(Snapshot("s", version, "State", version))
    assert (await store.read_snapshot("s")).data == 9
    assert (await store.read_snapshot("s", up_to=8)).data == 7
    assert (await store.read_snapshot("s", up_to=5)).data == 5
    with pytest.raises(SnapshotNotFound):
        await store.read_snapshot("s", up_to=4)


@pytest.mark.parity("T176", "T177", "L42")
async def test_a_snapshot_of_the_same_version_is_replaced(store: EventStore) -> None:
    await store.record_snapshot(Snapshot("s", 1, "Old", {"a": 1}, {"m": 1}))
    first = await store.read_snapshot("s")
    await store.record_snapshot(Snapshot("s", 1, "New", {"b": 2}))
    second = await store.read_snapshot("s")
    assert (second.type, second.data, second.metadata) == ("New", {"b": 2}, None)
    assert first.created_at is not None
    assert second.created_at is not None
    assert second.created_at > first.created_at


@pytest.mark.parity("T071", "T173", "T178", "T179")
async def test_snapshots_are_deleted(store: EventStore) -> None:
    with pytest.raises(SnapshotNotFound):
        await store.read_snapshot("s")
    assert await store.delete_snapshots("s") == 0
    for version in (1, 2, 3):
        await store.record_snapshot(Snapshot("s", version, "State", version))
    await store.record_snapshot(Snapshot("other", 1, "State", 1))
    assert await store.delete_snapshots("s", before=3) == 2
    assert (await store.read_snapshot("s")).version == 3
    assert await store.delete_snapshots("s") == 1
    with pytest.raises(SnapshotNotFound):
        await store.read_snapshot("s")
    assert (await store.read_snapshot("other")).data == 1


async def test_a_snapshot_belongs_to_the_callers_transaction(store: EventStore, transaction: Transaction) -> None:
    await store.record_snapshot(Snapshot("s", 1, "State", 1))
    async with undone(transaction) as conn:
        await store.record_snapshot(Snapshot("s", 2, "State", 2), conn=conn)
        assert (await store.read_snapshot("s", conn=conn)).version == 2
        assert await store.delete_snapshots("s", conn=conn) == 2
    assert (await store.read_snapshot("s")).version == 1


@pytest.mark.parity("L41")
async def test_a_snapshot_that_cannot_be_saved_is_refused(store: EventStore) -> None:
    for bad in BAD_SNAPSHOTS:
        with pytest.raises(InvalidArgument):
            await store.record_snapshot(bad)


@pytest.mark.parity("L41")
async def test_a_state_that_cannot_be_encoded_is_told_before_a_transaction_that_is_none(store: EventStore) -> None:
    no_transaction: Any = True
    with pytest.raises(EncodingFailed):
        await store.record_snapshot(Snapshot("s", 1, "State", object()), conn=no_transaction)
    with pytest.raises(InvalidArgument):
        await store.record_snapshot(Snapshot("s", 1, "State", 1), conn=no_transaction)


async def test_a_state_that_cannot_be_encoded_is_refused(store: EventStore) -> None:
    for data, metadata in (
        (object(), None),
        (1, {"x": object()}),
        ("\ud800", None),
        (float("nan"), None),
        (1, {"x": [float("inf")]}),
    ):
        with pytest.raises(EncodingFailed):
            await store.record_snapshot(Snapshot("s", 1, "State", data, metadata))
    with pytest.raises(SnapshotNotFound):
        await store.read_snapshot("s")
