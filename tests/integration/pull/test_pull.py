"""A program pulls a named subscription from a real store: from its checkpoint on, alone, and as operators ask."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headwater import (
    Delivery,
    Filter,
    InvalidArgument,
    NewEvent,
    OnFailure,
    RetryPolicy,
    SubscriptionConflict,
    pull,
)
from headwater.storage.postgres.placement import PostgresPlacement
from headwater.storage.postgres.registry import Registry
from tests.integration.pull.world import World, numbers, take
from tests.plugins.waiting import until


async def test_what_was_acknowledged_is_behind_the_checkpoint_and_the_next_program_goes_on(world: World) -> None:
    async with world.pulling() as subscription:
        batches = aiter(subscription)
        batch = await take(batches)
        assert numbers(batch) == [1, 2, 3, 4, 5]
        assert (batch.attempt, batch.replaying, batch.side_effects) == (1, False, True)
        await batch.ack(1, 2)
    assert await world.checkpoint() == 2
    async with world.pulling() as subscription:
        batches = aiter(subscription)
        batch = await take(batches)
        assert numbers(batch) == [3, 4, 5]
        await batch.ack()
        await world.store.append("order-2", [NewEvent("OrderPaid")])
        assert numbers(await take(batches)) == [6]


async def test_a_second_program_stands_by_and_goes_on_when_the_first_ends(world: World) -> None:
    async with world.pulling() as second, world.pulling() as first:
        taker, waiting = first.subscriber("first"), second.subscriber("second")
        await until(lambda: first.runner is not None or second.runner is not None)
        owner, other = (first, second) if first.runner is not None else (second, first)
        mine, theirs = (taker, waiting) if owner is first else (waiting, taker)
        batches = aiter(mine)
        await (await take(batches)).ack_through(4)
        assert other.runner is None
        await mine.leave()
        assert numbers(await take(aiter(theirs))) == [5]
        await theirs.leave()


@pytest.mark.parity("L39")
async def test_a_program_with_a_higher_limit_does_not_raise_that_of_one_that_runs(world: World) -> None:
    async with world.pulling() as first, first.subscriber("a") as taker:
        batch = await taker.take()
        assert batch is not None
        async with world.pulling(consumers=5) as second:
            for name in ("b", "c"):
                second.subscriber(name)
            with pytest.raises(SubscriptionConflict, match="has its 1 subscribers already"):
                first.subscriber("b")
            await batch.ack()
            await world.client.wait_for("invoices", 5, timeout=30)
            assert second.runner is None
            [found] = await world.client.partitions("invoices")
            assert found.epoch == batch.epoch


async def test_an_operator_pauses_resumes_and_rewinds_it(world: World) -> None:
    async with world.pulling() as subscription:
        batches = aiter(subscription)
        await (await take(batches)).ack()
        await world.client.command("invoices", "pause")
        await until(lambda: subscription.status is not None and subscription.status.phase.value == "paused")
        await world.client.rewind("invoices", 3, side_effects=False)
        await world.client.command("invoices", "resume")
        batch = await take(batches)
        assert (numbers(batch), batch.replaying, batch.side_effects) == ([4, 5], True, False)
        await batch.ack()
        await world.client.wait_for("invoices", 5, timeout=30)


async def test_parked_events_are_tried_again_and_their_key_goes_on(world: World) -> None:
    async with world.pulling(retry=RetryPolicy(attempts=1)) as subscription:
        batches = aiter(subscription)
        batch = await take(batches)
        await batch.ack(1)
        await batch.nack("the printer is out of paper", OnFailure.PARK)
        await world.client.wait_for("invoices", 5, timeout=30)
        assert [parked.position for parked in await world.client.parked("invoices")] == [2, 3, 4, 5]
        await world.client.retry_parked("invoices")
        for position in (2, 3, 4, 5):
            batch = await take(batches)
            assert (numbers(batch), batch.attempt) == ([position], 2)
            await batch.ack()
        await world.store.append("order-1", [NewEvent("OrderPaid")])
        assert numbers(await take(batches)) == [6]
        assert await world.client.parked("invoices") == []


async def test_an_at_most_once_loop_that_is_left_loses_nothing_and_gets_nothing_twice(world: World) -> None:
    seen: list[list[int]] = []
    for _ in range(3):
        options: dict[str, Any] = {"delivery": Delivery.AT_MOST_ONCE, "batch_size": 2}
        async with world.pulling(**options) as subscription, asyncio.timeout(20):
            async for batch in subscription:
                seen.append(numbers(batch))
                await batch.ack()
                break
    assert seen == [[1, 2], [3, 4], [5]]
    assert await world.checkpoint() == 5
    assert await world.client.parked("invoices") == []


async def test_only_what_the_filter_lets_through_is_pulled(world: World) -> None:
    await world.store.append("refund-1", [NewEvent("Refunded")])
    async with world.pulling(where=Filter(categories=("refund",))) as subscription:
        assert numbers(await take(aiter(subscription))) == [6]


async def test_no_host_is_asked_to_run_it(world: World) -> None:
    placement = PostgresPlacement(world.store.pool, world.store.sql)
    async with world.pulling() as subscription:
        batches = aiter(subscription)  # as long as it is there, somebody takes
        batch = await take(batches)

        async def told_to_run() -> bool:
            # Its owner tells it beside the first delivery.
            [found] = await world.client.partitions("invoices")
            return found.phase == "running"

        await until(told_to_run)
        [found] = await world.client.partitions("invoices")
        assert found.pulled
        assert "-pull-" in (found.node or "")
        assert await placement.partitions() == []
        await batch.ack()
    [found] = await world.client.partitions("invoices")
    assert (found.phase, found.reason, found.node) == ("unowned", "no program pulls it", None)
    assert (await world.client.status()).without_standby == 0


async def test_a_name_that_a_handler_consumes_is_refused_and_so_are_options_of_handlers(world: World) -> None:
    async with world.pulling("pulled"):
        pass
    await Registry(world.store.pool, world.store.sql, world.store).register("handled", "shop:handle", {})
    with pytest.raises(SubscriptionConflict, match="shop:handle"):
        async with world.pulling("handled"):
            pass
    for options, argument in (
        ({"partitions": 2}, "partitions"),
        ({"replaces": "pulled"}, "replaces"),
        ({"delivery": Delivery.EXACTLY_ONCE}, "delivery"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            async with world.pulling("another", **options):
                pass
        assert refused.value.argument == argument
    with pytest.raises(SubscriptionConflict, match="programs pull it"):
        await world.client.repartition("pulled", 2)
    with pytest.raises(SubscriptionConflict, match="programs pull it"):
        await world.client.replace("pulled", "another", handler="shop:handle")
    with pytest.raises(SubscriptionConflict, match="programs pull it"):
        await world.client.replay("pulled")


async def test_options_that_are_none_are_refused_before_anything_is_opened() -> None:
    with pytest.raises(InvalidArgument, match="options: must be of type SubscriptionOptions, not dict"):
        async with pull("w2", {"batch_size": 2}):  # type: ignore[arg-type]
            pass
