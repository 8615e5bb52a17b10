"""Subscribers inside one program: how they come, go and fail, and when their time begins."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from headwater import (
    Delivery,
    NewEvent,
    PulledBatch,
    PullSubscriber,
    PullSubscription,
    RetryPolicy,
    UnexpectedAck,
)
from tests.integration.pull.world import World, numbers
from tests.plugins.waiting import until

OFTEN = RetryPolicy(attempts=10_000, first_delay=timedelta(milliseconds=1), max_delay=timedelta(milliseconds=1))
THREE: dict[str, Any] = {"consumers": 3, "batch_size": 1, "partition_by": "none", "retry": OFTEN}


async def in_hand(subscription: PullSubscription, events: int) -> None:
    """Wait until so many events are delivered and undecided."""
    await until(lambda: subscription.status is not None and subscription.status.in_flight == events)


@pytest.mark.parity("L37")
class TestTime:
    """The time-out of a delivery."""

    async def test_it_does_not_run_while_a_batch_waits_for_its_taker(self, world: World) -> None:
        limit, retry = timedelta(milliseconds=20), RetryPolicy(attempts=3, first_delay=timedelta(milliseconds=1))
        async with (
            world.pulling(batch_size=1, handler_timeout=limit, retry=retry) as subscription,
            subscription.subscriber("slow") as slow,
        ):
            await in_hand(subscription, 1)
            # Longer than all its attempts would take, were they made.
            enough = time.monotonic() + 0.5
            await until(lambda: time.monotonic() > enough)
            batch = await slow.take()
            assert batch is not None
            assert (numbers(batch), batch.attempt) == ([1], 1)
            assert await world.client.parked("invoices") == []

    async def test_whoever_is_too_late_is_handed_nothing_until_it_asks_again(self, world: World) -> None:
        options = THREE | {"consumers": 2, "handler_timeout": timedelta(milliseconds=50)}
        async with (
            world.pulling(**options) as subscription,
            subscription.subscriber("hangs") as hangs,
            subscription.subscriber("works") as works,
        ):
            late = await hangs.take()
            assert late is not None

            async def work() -> None:
                async for batch in works:
                    # It may be too late itself, when something keeps it waiting: then the batch comes again.
                    if not batch.over:
                        await batch.ack()

            working = asyncio.create_task(work())
            await until(lambda: late.over)
            await world.client.wait_for("invoices", 5, timeout=30)
            with pytest.raises(UnexpectedAck):
                await late.ack()
            await works.leave()
            await working
            await world.store.append("order-2", [NewEvent("OrderPaid")])
            again = await hangs.take()
            assert again is not None
            assert numbers(again) == [6]
            assert await world.client.parked("invoices") == []


@pytest.mark.parametrize("ending", ["error", "cancelled"])
@pytest.mark.parametrize("taking", ["loop", "kept iterator", "one by one"])
async def test_a_subscriber_whose_task_ends_leaves_its_seat_and_its_events_to_the_others(
    world: World, ending: str, taking: str
) -> None:
    seen: list[int] = []
    held: list[PulledBatch] = []

    async def dies(subscription: PullSubscription) -> None:
        mine = subscription.subscriber("dies")
        batches = aiter(mine)
        if taking == "one by one":
            batch = await mine.take()
        elif taking == "kept iterator":
            batch = await anext(batches)
        else:
            async for each in mine:
                await die(each)
        assert batch is not None
        await die(batch)

    async def die(batch: PulledBatch) -> None:
        held.append(batch)
        if ending == "error":
            raise ValueError("the printer is on fire")
        await asyncio.Event().wait()

    async def works(subscription: PullSubscription, name: str) -> None:
        async with subscription.subscriber(name) as mine:
            async for batch in mine:
                seen.extend(numbers(batch))
                await batch.ack()

    async with world.pulling(**THREE) as subscription:
        dying = asyncio.create_task(dies(subscription))
        await until(lambda: held)
        if ending == "cancelled":
            dying.cancel()
        await asyncio.wait([dying])
        working = [asyncio.create_task(works(subscription, name)) for name in ("b", "c")]
        await world.client.wait_for("invoices", 5, timeout=30)
        assert sorted(seen) == [1, 2, 3, 4, 5]
        with pytest.raises(UnexpectedAck):
            await held[0].ack()
        # It may come back under its name, while what ended the first one is still looked at.
        assert dying.done()
        subscription.subscriber("dies")
    await asyncio.gather(*working)


async def test_an_async_with_gives_the_seat_back_however_it_ends(world: World) -> None:
    async with world.pulling(batch_size=2) as subscription:

        async def print_none() -> None:
            async with subscription.subscriber("printer") as mine:
                batch = await mine.take()
                assert batch is not None
                assert numbers(batch) == [1, 2]
                kept.append((mine, batch))
                raise ValueError("no paper")

        kept: list[tuple[PullSubscriber, PulledBatch]] = []
        for _ in range(2):
            with pytest.raises(ValueError, match="no paper"):
                await print_none()
        for mine, batch in kept:
            with pytest.raises(UnexpectedAck):
                await batch.ack()
            assert await mine.take() is None


async def test_waiting_for_a_batch_can_be_given_up_without_giving_up_the_seat(world: World) -> None:
    async with world.pulling(source="order-2") as subscription:
        batches = aiter(subscription)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(batches)
        await world.store.append("order-2", [NewEvent("OrderPaid")])
        assert numbers(await anext(batches)) == [1]


async def test_a_loop_that_was_left_is_followed_by_another_at_once(world: World) -> None:
    seen: list[tuple[list[int], int]] = []
    async with world.pulling(batch_size=2) as subscription, asyncio.timeout(60):
        for end in ("break", "error", "break", "unsaid", "break"):
            try:
                async for batch in subscription:
                    seen.append((numbers(batch), batch.attempt))
                    if end == "error":
                        raise ValueError("in the loop")
                    if end == "break":
                        await batch.ack()
                    break
            except ValueError:
                pass
    assert seen == [([1, 2], 1), ([3, 4], 1), ([3, 4], 1), ([5], 1), ([5], 1)]
    assert await world.checkpoint() == 5


async def test_what_was_acknowledged_before_a_loop_was_left_does_not_come_again(world: World) -> None:
    seen: list[int] = []
    async with world.pulling(batch_size=1) as subscription, asyncio.timeout(60):
        while len(seen) < 5:
            async for batch in subscription:
                seen += numbers(batch)
                await batch.ack()
                break
    assert seen == [1, 2, 3, 4, 5]
    assert await world.checkpoint() == 5


async def test_a_named_subscriber_may_begin_another_loop_and_gets_what_it_left_open(world: World) -> None:
    async with world.pulling(batch_size=2) as subscription, subscription.subscriber("a") as mine:
        async for batch in mine:
            assert numbers(batch) == [1, 2]
            await batch.ack(1)
            break
        async for again in mine:
            assert numbers(again) == [2, 3]
            with pytest.raises(UnexpectedAck):
                await batch.ack()
            await again.ack()
            break
    assert await world.checkpoint() == 3


async def test_what_nobody_has_seen_was_no_attempt(world: World) -> None:
    async with world.pulling(batch_size=5, delivery=Delivery.AT_LEAST_ONCE, consumers=2) as subscription:
        async with subscription.subscriber("first"):
            await in_hand(subscription, 5)
            second = subscription.subscriber("second")
        batch = await second.take()
        assert batch is not None
        assert (numbers(batch), batch.attempt) == ([1, 2, 3, 4, 5], 1)
