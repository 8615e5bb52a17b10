"""Events are delivered whatever Redis does: hints only save waiting."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from headwater.storage.embedded import EmbeddedRedis
from headwater.storage.model import EventPage, Filter, NewEvent
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.checkpoints import PostgresCheckpoints
from headwater.storage.postgres.leases import LeaseSession
from headwater.storage.postgres.registry import Registry
from headwater.storage.postgres.store import PostgresEventStore
from headwater.storage.redis import RedisHints
from headwater.storage.redis import hints as hints_module
from headwater.subscriptions.heads import Heads
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.ports import Delivered
from headwater.subscriptions.runner import SubscriptionRunner
from tests.plugins.waiting import DEADLINE, until

CHANNEL = "headwater:test:delivery"


class Collector:
    """A consumer that keeps the positions it was given."""

    def __init__(self) -> None:
        self.positions: list[int] = []

    async def handle(self, delivery: Delivered) -> None:
        self.positions += [event.position for event in delivery.events]

    async def close(self) -> None: ...


class CountingReader:
    """A store's reads, counted."""

    def __init__(self, store: PostgresEventStore) -> None:
        self._store = store
        self.pages = 0

    async def read_page(self, source: str, after: int, limit: int, *, where: Filter = Filter()) -> EventPage:  # noqa: B008
        self.pages += 1
        return await self._store.read_page(source, after, limit, where=where)

    async def head(self) -> int:
        return await self._store.head()


@asynccontextmanager
async def subscription(
    database_url: str, redis_url: str | None, *, poll_interval: float
) -> AsyncIterator[tuple[PostgresEventStore, CountingReader, Collector]]:
    """Run a subscription of everything for the length of the block, which begins when its hints are heard."""
    async with AsyncExitStack() as stack:
        hints = None
        if redis_url is not None:
            hints = await stack.enter_async_context(RedisHints(redis_url, CHANNEL))
        announce = None if hints is None else hints.publish
        store = await stack.enter_async_context(await PostgresEventStore.open(database_url, announce=announce))
        registry = Registry(store.pool, store.sql, store)
        await registry.register("orders", "package.module:handler", {})
        # Long: with another session the subscription would begin anew, and deliver some events once more.
        leases = LeaseSession(StoreOptions(url=database_url), host="host", lease=timedelta(seconds=30))
        await leases.open()
        stack.push_async_callback(leases.close)
        (grant,) = await leases.claim([state.key for state in await registry.states()])
        reader, collector = CountingReader(store), Collector()
        heads = Heads(reader, hints, poll_interval=poll_interval)
        runner = SubscriptionRunner(
            SubscriptionOptions(batch_size=100, poll_interval=timedelta(seconds=poll_interval)),
            grant,
            reader=reader,
            leases=leases,
            checkpoints=PostgresCheckpoints(store.pool, store.sql),
            consumers=[collector],
            heads=heads,
        )
        tasks = [asyncio.create_task(heads.run()), asyncio.create_task(runner.run())]
        try:
            if redis_url is not None:
                await listened_to(redis_url)
            yield store, reader, collector
        finally:
            runner.drain()
            await tasks[1]
            tasks[0].cancel()
            await asyncio.wait(tasks)


async def listened_to(redis_url: str) -> None:
    """Wait until somebody listens."""
    async with Redis.from_url(redis_url) as client:

        async def listeners() -> bool:
            return bool((await client.pubsub_numsub(CHANNEL))[0][1])

        await until(listeners)


@pytest.fixture
def no_hint_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a hint take as long as it may on a busy machine: a test that polls for nothing waits for each of them."""
    monkeypatch.setattr(hints_module, "TIMEOUT", DEADLINE)


async def append(store: PostgresEventStore, count: int) -> None:
    for _ in range(count):
        await store.append("order-1", [NewEvent("OrderPlaced")])


async def all_delivered(collector: Collector, count: int) -> None:
    await until(lambda: len(collector.positions) >= count)
    assert collector.positions == list(range(1, count + 1))


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    """A server of the test's own, to be broken."""
    with EmbeddedRedis() as started:
        yield started


async def test_without_redis_polling_finds_everything(database_url: str) -> None:
    async with subscription(database_url, None, poll_interval=0.1) as (store, _, collector):
        await append(store, 20)
        await all_delivered(collector, 20)


@pytest.mark.parity("L5", "T106", "T357")
async def test_a_redis_that_is_killed_loses_nothing(database_url: str, server: EmbeddedRedis) -> None:
    async with subscription(database_url, server.url, poll_interval=0.1) as (store, _, collector):
        await append(store, 10)
        server.stop()
        await append(store, 10)
        await all_delivered(collector, 20)


@pytest.mark.parity("L5")
async def test_a_redis_that_answers_nothing_loses_nothing(database_url: str, server: EmbeddedRedis) -> None:
    async with subscription(database_url, server.url, poll_interval=0.1) as (store, _, collector):
        await append(store, 10)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            await append(store, 10)
            await all_delivered(collector, 20)
        finally:
            os.kill(server.pid, signal.SIGCONT)


LIES: dict[str, Sequence[int]] = {
    "beyond the head": [10**15, 2**63 - 1],
    "long past": [1, 0, 1],
    "in reverse": list(range(40, 0, -1)),
    "doubled": [3] * 50,
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_redis_that_lies_changes_nothing_that_is_delivered(
    database_url: str, server: EmbeddedRedis, lie: str
) -> None:
    async with (
        subscription(database_url, server.url, poll_interval=0.1) as (store, _, collector),
        Redis.from_url(server.url) as liar,
    ):
        await append(store, 5)
        for head in LIES[lie]:
            await liar.publish(CHANNEL, head)
        await append(store, 15)
        for head in LIES[lie]:
            await liar.publish(CHANNEL, head)
        await all_delivered(collector, 20)


@pytest.mark.usefixtures("no_hint_is_given_up")
async def test_a_hint_beyond_the_head_costs_a_bounded_number_of_reads(database_url: str, server: EmbeddedRedis) -> None:
    async with (
        subscription(database_url, server.url, poll_interval=3600) as (store, reader, collector),
        Redis.from_url(server.url) as liar,
    ):
        await append(store, 1)
        await all_delivered(collector, 1)
        before = reader.pages
        for _ in range(100):
            assert await liar.publish(CHANNEL, 10**15) == 1
        await append(store, 1)
        await all_delivered(collector, 2)
        assert reader.pages - before <= 102


@pytest.mark.usefixtures("no_hint_is_given_up")
async def test_hints_alone_wake_the_subscription_when_polling_is_far_away(
    database_url: str, server: EmbeddedRedis
) -> None:
    async with subscription(database_url, server.url, poll_interval=3600) as (store, _, collector):
        for count in range(1, 6):
            await append(store, 1)
            await all_delivered(collector, count)
