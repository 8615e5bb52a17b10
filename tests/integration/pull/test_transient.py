"""Pulling without leaving anything behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from headwater import (
    InvalidArgument,
    NewEvent,
    PullSubscription,
    RetryPolicy,
    Start,
    StreamDeleted,
    SubscriptionOptions,
    transient,
)
from tests.integration.pull.world import SOON, World, numbers, take
from tests.plugins.waiting import until


@asynccontextmanager
async def watching(world: World, **options: Any) -> AsyncIterator[PullSubscription]:
    defaults: dict[str, Any] = {"batch_size": 10, "poll_interval": SOON}
    async with transient(
        "invoices", SubscriptionOptions(**(defaults | options)), cluster=world.cluster
    ) as subscription:
        yield subscription


@pytest.mark.parity("T329", "T330")
@pytest.mark.parametrize("start", [0, 1, 4])
@pytest.mark.parametrize("source", ["$all", "order-1"])
async def test_each_block_begins_at_the_start_again(world: World, start: int, source: str) -> None:
    for _ in range(2):
        async with watching(world, start=start, source=source) as subscription:
            batches = aiter(subscription)
            batch = await take(batches)
            assert numbers(batch) == [1, 2, 3, 4, 5][start:]
            await batch.ack()
            await until(lambda: subscription.status is not None and subscription.status.checkpoint == 5)


@pytest.mark.parity("T331", "T332")
async def test_it_leaves_nothing_behind_and_touches_no_durable_one_of_its_name(world: World) -> None:
    async with watching(world) as subscription:
        async for batch in subscription:
            await batch.ack()
            break
    assert await world.client.partitions() == []
    async with world.pulling(batch_size=2) as durable:
        async for batch in durable:
            assert numbers(batch) == [1, 2], "from the origin"
            await batch.ack()
            break
    async with watching(world) as subscription, world.pulling() as durable:
        everything, rest = await take(aiter(subscription)), await take(aiter(durable))
        assert (numbers(everything), numbers(rest)) == ([1, 2, 3, 4, 5], [3, 4, 5])
    assert await world.checkpoint() == 2


async def test_it_may_begin_now_or_at_a_time(world: World) -> None:
    [third] = await world.store.read("order-1", start=3, limit=1)
    async with (
        watching(world, start=Start.CURRENT, source="order-1") as now,
        watching(world, start=third.created_at) as then,
    ):
        await world.store.append("order-1", [NewEvent("OrderPaid")])
        assert numbers(await take(aiter(now))) == [6]
        # One append has one time: its first event is where it begins.
        assert numbers(await take(aiter(then)))[0] == 1


async def test_no_more_is_in_memory_than_may_be_until_it_is_acknowledged(world: World) -> None:
    async with watching(world, batch_size=1, max_in_flight=2) as subscription:
        batches = aiter(subscription)
        for expected in range(1, 6):
            batch = await take(batches)
            assert numbers(batch) == [expected]
            status = subscription.status
            assert status is not None
            assert status.unsettled <= 2
            await batch.ack()


async def test_what_fails_for_good_is_skipped_and_its_key_goes_on(world: World) -> None:
    retry = RetryPolicy(attempts=2, first_delay=timedelta(milliseconds=1))
    async with watching(world, batch_size=1, retry=retry, partition_by="stream") as subscription:
        batches = aiter(subscription)
        seen: list[tuple[int, int]] = []
        while len(seen) < 6:
            batch = await take(batches)
            seen.append((batch.events[0].number, batch.attempt))
            if seen[-1][0] == 2:
                await batch.nack()
            else:
                await batch.ack()
    assert seen == [(1, 1), (2, 1), (2, 2), (3, 1), (4, 1), (5, 1)]


async def test_it_ends_with_its_stream(world: World) -> None:
    async with watching(world, source="order-1") as subscription, asyncio.timeout(20):
        batches = aiter(subscription)
        await (await take(batches)).ack()
        await world.store.delete_stream("order-1")
        with pytest.raises(StreamDeleted):
            await take(batches)
    with pytest.raises(StreamDeleted):
        async with watching(world, source="order-1", start=Start.CURRENT):
            pass


async def test_options_of_handlers_are_refused(world: World) -> None:
    with pytest.raises(InvalidArgument, match="partitions"):
        async with watching(world, partitions=2):
            pass
