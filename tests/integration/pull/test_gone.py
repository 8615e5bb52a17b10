"""What a program learns when its subscription, or the stream that it pulls, is deleted."""

from __future__ import annotations

import asyncio

import pytest

from headwater import NewEvent, StreamDeleted, StreamNotFound, SubscriptionNotFound, connect
from tests.integration.pull.world import World, numbers
from tests.plugins.waiting import until


@pytest.mark.parity("L15")
async def test_a_loop_over_a_subscription_that_is_deleted_ends_by_an_error_and_so_does_the_next(world: World) -> None:
    taken = asyncio.Event()

    async with world.pulling() as subscription:

        async def work() -> None:
            async for batch in subscription:
                await batch.ack()
                taken.set()

        working = asyncio.create_task(work())
        await taken.wait()
        assert await world.client.delete("invoices")
        async with asyncio.timeout(20):
            with pytest.raises(SubscriptionNotFound, match="invoices"):
                await working
            with pytest.raises(SubscriptionNotFound, match="invoices"):
                await subscription.subscriber("another").take()
        # One of the same name is another subscription: it begins anew, and this one stays over.
        async with world.pulling() as anew:
            assert numbers(await anext(aiter(anew))) == [1, 2, 3, 4, 5]
            with pytest.raises(SubscriptionNotFound):
                await anext(aiter(subscription))


async def test_a_program_that_stands_by_learns_it_too(world: World) -> None:
    async with world.pulling() as first, first.subscriber("first") as mine, world.pulling() as second:
        batch = await mine.take()
        assert batch is not None
        standing_by = second.subscriber("second")
        assert await world.client.delete("invoices")
        async with asyncio.timeout(20):
            with pytest.raises(SubscriptionNotFound):
                await standing_by.take()


@pytest.mark.parity("L15", "L16")
@pytest.mark.parametrize(("hard", "error"), [(False, StreamDeleted), (True, StreamNotFound)])
async def test_a_loop_over_a_stream_that_is_deleted_ends_by_an_error_and_lets_the_lease_go(
    world: World, hard: bool, error: type[Exception]
) -> None:
    async with world.pulling(source="order-1") as subscription:
        batches = aiter(subscription)
        batch = await anext(batches)
        await batch.ack()
        async with connect(world.cluster.store.url, hard_deletes=True) as deleting:
            await deleting.delete_stream("order-1", hard=hard)
        async with asyncio.timeout(20):
            with pytest.raises(error, match="order-1"):
                await anext(batches)
        await until(lambda: subscription.runner is None, what="the lease is kept")
        if not hard:
            await world.store.undelete_stream("order-1")
        await world.store.append("order-1", [NewEvent("OrderPaid")])
        async with asyncio.timeout(20):
            assert numbers(await anext(aiter(subscription))) == [1 if hard else 6]
