"""Reading one's own write: waiting until a subscription has settled what was appended."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from headwater import sync
from headwater.storage.errors import InvalidArgument, StreamDeleted, SubscriptionNotFound, WaitTimedOut
from headwater.storage.leases import Grant, Progress
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.checkpoints import PostgresCheckpoints
from headwater.storage.postgres.leases import LeaseSession
from headwater.storage.postgres.registry import Registry
from headwater.storage.postgres.store import PostgresEventStore
from tests.integration.subscriptions.following import LEASE
from tests.plugins.events import events


class Desk:
    """A store, and an owner that saves what a test tells it to."""

    def __init__(self, store: PostgresEventStore, leases: LeaseSession) -> None:
        self.store = store
        self.registry = Registry(store.pool, store.sql, store)
        self.checkpoints = PostgresCheckpoints(store.pool, store.sql)
        self._leases = leases

    async def granted(self, name: str, *, source: str = "$all", partitions: int = 1) -> list[Grant]:
        await self.registry.register(name, "m:h", {}, source=source, partitions=partitions)
        grants = await self._leases.claim([state.key for state in await self.registry.states(name)])
        return sorted(grants, key=lambda grant: grant.key.partition)


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    options = StoreOptions(url=database_url)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(await PostgresEventStore.open(options=options))
        leases = LeaseSession(options, host="host", lease=LEASE)
        await leases.open()
        stack.push_async_callback(leases.close)
        yield Desk(store, leases)


async def test_a_wait_ends_when_every_partition_has_saved_the_position(desk: Desk) -> None:
    first, second = await desk.granted("totals", partitions=2)
    result = await desk.store.append("order-1", events(3))
    waiting = asyncio.create_task(desk.store.wait_for("totals", result.last_position, 30))
    await desk.checkpoints.save(first, Progress(3))
    with pytest.raises(WaitTimedOut) as too_early:
        await desk.store.wait_for("totals", 3, 0)
    assert (too_early.value.partition, too_early.value.checkpoint) == (1, 0)
    assert not waiting.done()
    await desk.checkpoints.save(second, Progress(7))
    await waiting
    await desk.store.wait_for("totals", 3, 0)


async def test_a_wait_in_vain_says_where_the_subscription_stands_and_why(desk: Desk) -> None:
    await desk.store.append("order-1", events(5))
    await desk.registry.register("idle", "m:h", {})
    with pytest.raises(WaitTimedOut) as nobody:
        await desk.store.wait_for("idle", 5, 0)
    assert (nobody.value.phase, nobody.value.lag, nobody.value.reason) == ("unowned", 5, "no host holds its lease")
    (grant,) = await desk.granted("totals")
    await desk.checkpoints.save(grant, Progress(2))
    await desk.checkpoints.report(grant, "failed", "position 3 (OrderPlaced) failed 5 times: ValueError: no")
    with pytest.raises(WaitTimedOut, match="failed 5 times") as stopped:
        await desk.store.wait_for("totals", 5, 0.02)
    assert (stopped.value.phase, stopped.value.checkpoint, stopped.value.lag) == ("failed", 2, 3)
    assert isinstance(stopped.value, TimeoutError)
    assert pickle.loads(pickle.dumps(stopped.value)).fields == stopped.value.fields


async def test_a_position_is_mapped_to_the_versions_of_a_single_stream(desk: Desk) -> None:
    await desk.store.append("other", events(4))
    await desk.store.append("mine", events(2))
    await desk.store.append("other", events(4))
    await desk.store.append("mine", events(1))
    (grant,) = await desk.granted("totals", source="mine")
    await desk.store.wait_for("totals", 4, 0)
    with pytest.raises(WaitTimedOut):
        await desk.store.wait_for("totals", 5, 0)
    await desk.checkpoints.save(grant, Progress(2))
    await desk.store.wait_for("totals", 10, 0)
    with pytest.raises(WaitTimedOut):
        await desk.store.wait_for("totals", 11, 0)
    with pytest.raises(WaitTimedOut):
        # Not stored yet: it may still become one of this stream.
        await desk.store.wait_for("totals", 12, 0)


async def test_links_count_with_the_events_that_they_stand_for(desk: Desk) -> None:
    await desk.store.append("order-1", events(3))
    await desk.store.link("linked", await desk.store.read("order-1"))
    (grant,) = await desk.granted("totals", source="linked")
    await desk.checkpoints.save(grant, Progress(2))
    await desk.store.wait_for("totals", 2, 0)
    with pytest.raises(WaitTimedOut):
        await desk.store.wait_for("totals", 3, 0)


async def test_a_checkpoint_of_an_earlier_stream_of_that_name_does_not_count(database_url: str, desk: Desk) -> None:
    await desk.store.append("mine", events(5))
    (grant,) = await desk.granted("totals", source="mine")
    stream = await desk.store.stream_info("mine")
    await desk.checkpoints.save(grant, Progress(5, stream_id=stream.stream_id))
    async with await PostgresEventStore.open(database_url, hard_deletes=True) as store:
        await store.delete_stream("mine", hard=True)
    result = await desk.store.append("mine", events(1))
    with pytest.raises(WaitTimedOut):
        await desk.store.wait_for("totals", result.last_position, 0)


async def test_what_cannot_come_is_refused_at_once(desk: Desk) -> None:
    with pytest.raises(SubscriptionNotFound):
        await desk.store.wait_for("missing", 1, 60)
    await desk.store.append("mine", events(1))
    await desk.granted("totals", source="mine")
    await desk.store.delete_stream("mine")
    with pytest.raises(StreamDeleted):
        await desk.store.wait_for("totals", 1, 60)
    for position, timeout in [(-1, 1), (True, 1), (1, -1), (1, float("nan")), (1, "soon")]:
        with pytest.raises(InvalidArgument):
            await desk.store.wait_for("totals", position, timeout)  # type: ignore[arg-type]


def test_the_sync_face_waits_too(database_url: str) -> None:
    with sync.connect(database_url) as store, pytest.raises(SubscriptionNotFound):
        store.wait_for("missing", 1, 1)
