"""Batches that the caller's own code takes and acknowledges."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest

from headwater.storage.errors import InvalidArgument, StoreUnavailable, SubscriptionConflict, UnexpectedAck
from headwater.storage.leases import Grant, Progress
from headwater.storage.memory.subscriptions import MemoryCheckpoints, MemoryCoordination, MemoryLeases
from headwater.subscriptions.core.phases import Phase
from headwater.subscriptions.options import Delivery, OnFailure, RetryPolicy, SubscriptionOptions
from headwater.subscriptions.pull import PullSubscription
from headwater.subscriptions.pulled import PulledBatch
from headwater.subscriptions.pullers import PullSubscriber
from tests.plugins.waiting import until
from tests.unit.runner.outside import KEY, ListReader, Recording

NEVER = timedelta(hours=1)


class GatedCheckpoints(MemoryCheckpoints):
    """Rows whose saves wait for a gate."""

    def __init__(self, coordination: MemoryCoordination) -> None:
        super().__init__(coordination)
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0

    async def save(self, grant: Grant, progress: Progress, **more: Any) -> None:
        await self._pass()
        await super().save(grant, progress, **more)

    async def take_back(self, grant: Grant, progress: Progress) -> None:
        await self._pass()
        await super().take_back(grant, progress)

    async def _pass(self) -> None:
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1


class Pulling:
    """Rows that several pull subscriptions share."""

    def __init__(self, events: int) -> None:
        self.reader = ListReader(events)
        self.coordination = MemoryCoordination()
        self.checkpoints = GatedCheckpoints(self.coordination)
        self.leases: MemoryLeases
        self.observer = Recording()

    @property
    def checkpoint(self) -> int:
        return self.coordination.row(KEY).progress.checkpoint

    @asynccontextmanager
    async def subscription(self, **options: Any) -> AsyncIterator[PullSubscription]:
        self.leases = MemoryLeases(self.coordination, "puller")
        async with PullSubscription(
            KEY,
            SubscriptionOptions(**({"poll_interval": timedelta(milliseconds=10)} | options)),
            reader=self.reader,
            leases=self.leases,
            checkpoints=self.checkpoints,
            observer=self.observer,
        ) as subscription:
            yield subscription


async def take(subscriber: PullSubscriber | PullSubscription) -> PulledBatch:
    """Take the next batch."""
    async with asyncio.timeout(10):
        if isinstance(subscriber, PullSubscription):
            return await anext(aiter(subscriber))
        batch = await subscriber.take()
    assert batch is not None
    return batch


def numbers(batch: PulledBatch) -> list[int]:
    return [event.number for event in batch.events]


@pytest.mark.parity("T317", "T340")
async def test_a_loop_that_acknowledges_gets_everything_in_order() -> None:
    outside, seen = Pulling(25), []
    async with outside.subscription(batch_size=10) as subscription:
        async for batch in subscription:
            seen += numbers(batch)
            await batch.ack()
            if len(seen) == 25:
                break
    assert seen == list(range(1, 26))
    assert outside.checkpoint == 25


@pytest.mark.parity("T318", "T324", "T335")
async def test_events_are_acknowledged_one_by_one_by_event_or_number_in_any_order() -> None:
    outside = Pulling(4)
    async with outside.subscription(batch_size=4, checkpoint_events=1) as subscription:
        batch = await take(subscription.subscriber("a"))
        await batch.ack(batch.events[1])
        await batch.ack(3)
        assert subscription.status is not None
        assert subscription.status.watermark == 0
        await batch.ack(1)
        assert subscription.status.watermark == 3
        await until(lambda: outside.checkpoint == 3)
        assert not batch.over
        await batch.ack(4)
        assert batch.over


async def test_everything_up_to_a_position_is_acknowledged_at_once() -> None:
    outside = Pulling(5)
    async with outside.subscription(batch_size=5) as subscription:
        batch = await take(subscription.subscriber("a"))
        await batch.ack_through(3)
        assert subscription.status is not None
        assert subscription.status.watermark == 3
        with pytest.raises(UnexpectedAck):
            await batch.ack_through(2)


@pytest.mark.parity("T343", "E8", "L18")
async def test_what_is_not_in_flight_cannot_be_acknowledged() -> None:
    outside = Pulling(3)
    async with outside.subscription(batch_size=2) as subscription:
        batch = await take(subscription.subscriber("a"))
        with pytest.raises(UnexpectedAck, match=r"^event 99 of 'tested' is not in flight in delivery 1$") as refused:
            await batch.ack(99)
        assert (refused.value.number, refused.value.delivery) == (99, 1)
        await batch.ack(1)
        with pytest.raises(UnexpectedAck):
            await batch.ack(1)
        await batch.ack(2)
        with pytest.raises(UnexpectedAck, match=r"^delivery 1 of 'tested' is not in flight$"):
            await batch.ack()


@pytest.mark.parity("L18", "L37")
async def test_after_a_time_out_only_the_new_delivery_can_be_acknowledged() -> None:
    outside = Pulling(1)
    often = RetryPolicy(attempts=1000, first_delay=timedelta(milliseconds=1), max_delay=timedelta(milliseconds=1))
    async with outside.subscription(handler_timeout=timedelta(milliseconds=30), retry=often) as subscription:
        subscriber = subscription.subscriber("a")
        late = await take(subscriber)
        await until(lambda: late.over)
        with pytest.raises(UnexpectedAck):
            await late.ack()
        accepted = False
        while not accepted:  # a busy machine may take longer than the time-out to acknowledge it
            again = await take(subscriber)
            assert again.attempt > 1
            with suppress(UnexpectedAck):
                await again.ack()
                accepted = True
        await until(lambda: subscription.status is not None and subscription.status.watermark == 1)


@pytest.mark.parity("L29")
async def test_a_nack_leads_to_another_attempt_or_to_what_the_caller_says() -> None:
    outside = Pulling(3)
    fast = RetryPolicy(first_delay=timedelta(milliseconds=1))
    async with outside.subscription(retry=fast) as subscription:
        subscriber = subscription.subscriber("a")
        await (await take(subscriber)).nack("busy")
        again = await take(subscriber)
        assert (numbers(again), again.attempt) == ([1], 2)
        await again.nack("no use", OnFailure.SKIP)
        batch = await take(subscriber)
        assert numbers(batch) == [2]
        await batch.nack(ValueError("stop it"), OnFailure.STOP)
        await until(lambda: subscription.status is not None and subscription.status.phase is Phase.FAILED)
        assert subscription.status is not None
        assert "ValueError: stop it" in (subscription.status.reason or "")
        await until(lambda: len(outside.observer.failures) == 3)
        assert outside.observer.failures == ["busy", "no use", "ValueError: stop it"]


@pytest.mark.parity("T280", "T281", "T310", "L39")
async def test_the_number_of_subscribers_is_what_the_subscription_says() -> None:
    async with Pulling(0).subscription(consumers=2) as subscription:
        subscription.subscriber("a")
        with pytest.raises(SubscriptionConflict, match="the subscriber 'a' takes its batches already"):
            subscription.subscriber("a")
        second = subscription.subscriber("b")
        with pytest.raises(SubscriptionConflict, match="2 subscribers"):
            subscription.subscriber("c")
        await second.leave()
        subscription.subscriber("c")


@pytest.mark.parity("T279")
async def test_without_consumers_there_is_one_subscriber() -> None:
    async with Pulling(0).subscription() as subscription:
        subscription.subscriber("a")
        with pytest.raises(SubscriptionConflict):
            subscription.subscriber("b")


@pytest.mark.parity("T282")
async def test_subscribers_take_turns() -> None:
    async with Pulling(6).subscription(consumers=2, partition_by="none") as subscription:
        a, b = subscription.subscriber("a"), subscription.subscriber("b")
        seen: dict[str, list[int]] = {"a": [], "b": []}
        for _ in range(3):
            one, other = await take(a), await take(b)
            seen["a"] += numbers(one)
            seen["b"] += numbers(other)
            await one.ack()
            await other.ack()
    assert sorted(seen["a"] + seen["b"]) == [1, 2, 3, 4, 5, 6]
    assert len(seen["a"]) == 3


@pytest.mark.parity("T285", "T286")
async def test_what_a_subscriber_had_that_left_goes_to_the_others() -> None:
    async with Pulling(4).subscription(consumers=2, batch_size=2, partition_by="none") as subscription:
        a, b = subscription.subscriber("a"), subscription.subscriber("b")
        left, other = await take(a), await take(b)
        await a.leave()
        with pytest.raises(UnexpectedAck):
            await left.ack()
        await other.ack()
        again = await take(b)
        assert numbers(again) == numbers(left)
        assert again.attempt == 2


@pytest.mark.parity("T287", "T304", "T305", "T333", "T328", "T339", "T374", "T375")
async def test_when_the_last_subscriber_leaves_the_lease_is_free_and_the_next_one_goes_on() -> None:
    outside = Pulling(3)
    async with outside.subscription(checkpoint_interval=NEVER, checkpoint_events=1000) as subscription:
        first = subscription.subscriber("a")
        await (await take(first)).ack()
        unacknowledged = await take(first)
        assert numbers(unacknowledged) == [2]
        await first.leave()
        await until(lambda: outside.coordination.row(KEY).holder is None)
        assert outside.checkpoint == 1
        assert numbers(await take(subscription.subscriber("b"))) == [2]
        assert [batch async for batch in first] == [], "who has left gets nothing more"


@pytest.mark.parity("T347", "T348", "T350", "E19")
async def test_after_the_lease_was_lost_it_is_claimed_again_and_the_unacknowledged_come_again() -> None:
    outside = Pulling(3)
    async with outside.subscription(checkpoint_events=1) as subscription:
        subscriber = subscription.subscriber("a")
        await (await take(subscriber)).ack()
        batch = await take(subscriber)
        await until(lambda: outside.checkpoint == 1)
        outside.leases.end_session()
        await until(lambda: batch.over)
        with pytest.raises(UnexpectedAck):
            await batch.ack()
        outside.leases.reconnect()
        assert numbers(await take(subscriber)) == [2]


@pytest.mark.parity("T351", "T352", "T380", "T381")
async def test_while_another_session_has_the_lease_there_is_nothing_and_then_everything() -> None:
    outside = Pulling(2)
    other = MemoryLeases(outside.coordination, "other")
    (grant,) = await other.claim([KEY])
    async with outside.subscription(batch_size=5) as subscription:
        subscriber = subscription.subscriber("a")
        waiting = asyncio.create_task(take(subscriber))
        confirmed = asyncio.create_task(subscriber.subscribed())
        outside.reader.append(1)
        assert subscription.status is None
        assert not waiting.done()
        assert not confirmed.done()
        await other.release([grant])
        assert numbers(await waiting) == [1, 2, 3]
        await confirmed


async def test_exactly_once_is_refused_because_there_is_no_transaction_to_join() -> None:
    with pytest.raises(InvalidArgument, match="exactly-once"):
        async with Pulling(0).subscription(delivery=Delivery.EXACTLY_ONCE):
            pass


@pytest.mark.parity("T291")
async def test_each_acknowledgement_brings_the_next_batch() -> None:
    async with Pulling(6).subscription(batch_size=2) as subscription:
        subscriber = subscription.subscriber("a")
        for expected in ([1, 2], [3, 4], [5, 6]):
            batch = await take(subscriber)
            assert numbers(batch) == expected
            await batch.ack()


@pytest.mark.parity("T298")
async def test_a_batch_is_as_large_as_it_may_be_and_the_last_one_is_what_is_left() -> None:
    outside = Pulling(0)
    async with outside.subscription(consumers=2, batch_size=2) as subscription:
        taker = subscription.subscriber("only")

        async def next_batches(number: int) -> list[list[int]]:
            batches = []
            for _ in range(number):
                batch = await take(taker)
                batches.append(numbers(batch))
                await batch.ack()
            return batches

        for before in (0, 10):
            seen = []
            for stream in ("a", "b"):
                outside.reader.append(5, stream)
                seen += await next_batches(3)
            expected = [[1, 2], [3, 4], [5], [6, 7], [8, 9], [10]]
            assert seen == [[before + number for number in batch] for batch in expected]
        # What waits behind two keys fills every batch.
        outside.reader.append(5, "a")
        outside.reader.append(5, "b")
        seen = await next_batches(5)
        assert [len(batch) for batch in seen] == [2] * 5
        assert sorted(number for batch in seen for number in batch) == list(range(21, 31))


@pytest.mark.parity("T292", "E23")
async def test_subscribers_with_different_buffers_share_fairly() -> None:
    outside = Pulling(12)
    async with outside.subscription(consumers=2, batch_size=3, partition_by="none") as subscription:
        two, three = subscription.subscriber("two", buffer=2), subscription.subscriber("three", buffer=3)
        seen: dict[str, list[list[int]]] = {"two": [], "three": []}
        for _ in range(2):
            for taker, batches in ((two, 2), (three, 1)):
                for _ in range(batches):
                    batch = await take(taker)
                    seen[taker.name].append(numbers(batch))
                    for event in batch.events:  # in parts: the next one comes when the last part is acknowledged
                        await batch.ack(event)
    assert seen == {"two": [[1, 2], [3], [7, 8], [9]], "three": [[4, 5, 6], [10, 11, 12]]}


@pytest.mark.parity("T356")
async def test_a_key_that_is_released_goes_to_whoever_is_free_also_to_one_who_came_later() -> None:
    outside = Pulling(0)
    for _ in range(2):
        for stream in "ABCD":
            outside.reader.append(1, stream)
    async with outside.subscription(consumers=3, batch_size=1) as subscription:
        first, second = subscription.subscriber("first"), subscription.subscriber("second")
        held = {"first": await take(first), "second": await take(second)}
        moves = [("first", numbers(held["first"])), ("second", numbers(held["second"]))]
        third = subscription.subscriber("third")
        held["third"] = await take(third)
        moves.append(("third", numbers(held["third"])))
        for taker in (first, second, third, first, second):
            await held[taker.name].ack()
            held[taker.name] = await take(taker)
            moves.append((taker.name, numbers(held[taker.name])))
    assert moves == [
        ("first", [1]),
        ("second", [2]),
        ("third", [3]),
        ("first", [4]),
        ("second", [5]),  # of A, which the first one had
        ("third", [6]),
        ("first", [7]),
        ("second", [8]),
    ]


@pytest.mark.parity("E24")
async def test_with_several_keys_each_subscriber_gets_batches_of_one_key_in_order() -> None:
    outside = Pulling(0)
    for _ in range(2):
        outside.reader.append(5, "a")
        outside.reader.append(5, "b")
    async with outside.subscription(consumers=2, batch_size=5, max_in_flight=10) as subscription:
        takers = {name: subscription.subscriber(name) for name in ("first", "second")}
        seen: dict[str, list[int]] = {"a": [], "b": []}
        for _ in range(2):
            batches = [await take(taker) for taker in takers.values()]
            assert {batch.events[0].stream for batch in batches} == {"a", "b"}
            for batch in batches:
                (stream,) = {event.stream for event in batch.events}
                seen[stream] += numbers(batch)
                await batch.ack()
    assert seen == {"a": [1, 2, 3, 4, 5, 11, 12, 13, 14, 15], "b": [6, 7, 8, 9, 10, 16, 17, 18, 19, 20]}


@pytest.mark.parity("T296")
async def test_over_capacity_a_key_moves_to_whoever_is_free_once_it_is_released() -> None:
    outside = Pulling(6)
    async with outside.subscription(consumers=2, max_in_flight=2) as subscription:
        first, second = subscription.subscriber("a"), subscription.subscriber("b")
        for expected in range(1, 7):
            batch = await take(first if expected % 2 else second)
            assert numbers(batch) == [expected]
            await batch.ack()


@pytest.mark.parity("T306", "E10")
async def test_the_end_of_one_subscription_leaves_another_alone_and_can_be_repeated() -> None:
    one, other = Pulling(2), Pulling(2)
    async with one.subscription() as ending, other.subscription() as staying:
        leaving = ending.subscriber("a")
        await take(leaving)
        await leaving.leave()
        await leaving.leave()
        await ending.close()
        batch = await take(staying.subscriber("a"))
        assert numbers(batch) == [1]


@pytest.mark.parity("E28")
async def test_what_comes_again_comes_before_what_is_new_and_in_order() -> None:
    async with Pulling(6).subscription(consumers=2, batch_size=2, partition_by="none") as subscription:
        a, b = subscription.subscriber("a"), subscription.subscriber("b")
        await take(a)
        other = await take(b)
        await a.leave()
        await other.ack()
        seen = []
        for _ in range(2):
            batch = await take(b)
            seen += numbers(batch)
            await batch.ack()
    assert seen == [1, 2, 5, 6]


@pytest.mark.parity("E23")
async def test_each_subscriber_may_have_a_buffer_of_its_own() -> None:
    async with Pulling(0).subscription() as subscription:
        with pytest.raises(InvalidArgument):
            subscription.subscriber("none", buffer=0)
    outside = Pulling(0)
    for _ in range(2):
        outside.reader.append(5, "a")
        outside.reader.append(5, "b")
    async with outside.subscription(consumers=2, batch_size=5, max_in_flight=10) as subscription:
        sizes: dict[str, list[int]] = {"whole": [], "pairs": []}
        seen: dict[str, list[int]] = {"a": [], "b": []}

        async def work(taker: PullSubscriber) -> None:
            async for batch in taker:
                sizes[taker.name].append(len(batch.events))
                for event in batch.events:
                    seen[event.stream].append(event.number)
                await batch.ack()

        takers = [subscription.subscriber("whole"), subscription.subscriber("pairs", buffer=2)]
        working = [asyncio.create_task(work(taker)) for taker in takers]
        await until(lambda: outside.checkpoint == 20)
        for taker in takers:
            await taker.leave()
        await asyncio.gather(*working)
    assert set(sizes["whole"]) == {5}
    assert set(sizes["pairs"]) == {2, 1}
    assert seen == {"a": [1, 2, 3, 4, 5, 11, 12, 13, 14, 15], "b": [6, 7, 8, 9, 10, 16, 17, 18, 19, 20]}


async def test_a_piece_that_is_not_handled_takes_what_is_left_of_its_batch_along() -> None:
    async with Pulling(6).subscription(batch_size=6, retry=RetryPolicy(first_delay=timedelta(0))) as subscription:
        taker = subscription.subscriber("pairs", buffer=2)
        first = await take(taker)
        await first.ack(1)
        await first.ack()
        with pytest.raises(UnexpectedAck):
            await first.ack()
        second = await take(taker)
        assert numbers(second) == [3, 4]
        await second.nack()
        with pytest.raises(UnexpectedAck):
            await second.ack()
        again = await take(taker)
        assert (numbers(again), again.attempt) == ([3, 4], 2)


async def test_a_session_that_ends_while_the_lease_is_given_back_ends_no_subscription(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outside, releases = Pulling(2), []
    async with outside.subscription() as subscription:
        subscriber = subscription.subscriber("one")
        await (await take(subscriber)).ack()

        async def release(grants: object) -> None:
            releases.append(grants)
            outside.leases.reconnect()
            raise StoreUnavailable("the lease session has ended")

        monkeypatch.setattr(outside.leases, "release", release)
        await subscriber.leave()
        await until(lambda: releases)
        again = subscription.subscriber("two")
        batch = await take(again)
        assert numbers(batch) == [2]
        monkeypatch.undo()
        await batch.ack()


async def pulled(outside: Pulling, most: int, **options: Any) -> list[int]:
    """Pull, and leave the loop once so many events were acknowledged."""
    seen: list[int] = []
    async with outside.subscription(delivery=Delivery.AT_MOST_ONCE, **options) as subscription, asyncio.timeout(10):
        async for batch in subscription:
            seen += numbers(batch)
            await batch.ack()
            if len(seen) >= most:
                break
    return seen


class TestAtMostOnce:
    """Without a crash nothing is lost, and nothing comes twice."""

    async def test_whoever_leaves_the_loop_after_an_acknowledgement_loses_nothing_of_what_follows(self) -> None:
        outside = Pulling(6)
        assert await pulled(outside, 2, batch_size=2) == [1, 2]
        assert outside.checkpoint == 2
        assert await pulled(outside, 4, batch_size=2) == [3, 4, 5, 6]
        assert outside.checkpoint == 6
        assert outside.coordination.row(KEY).parked == {}

    async def test_a_batch_whose_checkpoint_is_being_saved_when_the_last_subscriber_leaves_comes_later(self) -> None:
        outside = Pulling(4)
        async with outside.subscription(delivery=Delivery.AT_MOST_ONCE, batch_size=2) as subscription:
            subscriber = subscription.subscriber("a")
            await (await take(subscriber)).ack()
            outside.checkpoints.gate.clear()
            await until(lambda: outside.checkpoints.waiting == 1)
            await subscriber.leave()
            outside.checkpoints.gate.set()
            await until(lambda: outside.coordination.row(KEY).holder is None)
            assert outside.checkpoint == 2
            assert numbers(await take(subscription.subscriber("b"))) == [3, 4]

    @pytest.mark.parametrize("then", [OnFailure.PARK, OnFailure.SKIP, OnFailure.STOP])
    async def test_a_batch_that_is_ready_and_nobody_has_taken_comes_later(self, then: OnFailure) -> None:
        outside = Pulling(4)
        options: dict[str, Any] = {"delivery": Delivery.AT_MOST_ONCE, "batch_size": 2, "retry": RetryPolicy(then=then)}
        async with outside.subscription(**options) as subscription:
            subscriber = subscription.subscriber("a")
            await (await take(subscriber)).ack()
            await until(lambda: subscription.status is not None and subscription.status.in_flight == 2)
            await subscriber.leave()
            await until(lambda: outside.coordination.row(KEY).holder is None)
            assert outside.checkpoint == 2
            assert numbers(await take(subscription.subscriber("b"))) == [3, 4]

    async def test_whoever_subscribes_before_the_owner_has_let_go_gets_what_is_owed_and_once(self) -> None:
        outside = Pulling(4)
        async with outside.subscription(delivery=Delivery.AT_MOST_ONCE, batch_size=2) as subscription:
            a = subscription.subscriber("a")
            await (await take(a)).ack()
            await until(lambda: subscription.status is not None and subscription.status.in_flight == 2)
            await a.leave()
            b = subscription.subscriber("b")
            batch = await take(b)
            assert (numbers(batch), batch.attempt) == ([3, 4], 1)
            assert [batch async for batch in a] == []
            await batch.ack()
            outside.reader.append(1)
            assert numbers(await take(b)) == [5]

    async def test_whoever_subscribes_while_a_batch_is_being_taken_back_gets_it_from_the_next_grant(self) -> None:
        outside = Pulling(4)
        async with outside.subscription(delivery=Delivery.AT_MOST_ONCE, batch_size=2) as subscription:
            a = subscription.subscriber("a")
            first = await take(a)
            await first.ack()
            await until(lambda: subscription.status is not None and subscription.status.in_flight == 2)
            outside.checkpoints.gate.clear()
            await a.leave()
            await until(lambda: outside.checkpoints.waiting == 1)
            b = subscription.subscriber("b")
            outside.checkpoints.gate.set()
            batch = await take(b)
            assert numbers(batch) == [3, 4]
            assert batch.epoch > first.epoch
            await batch.ack()
            outside.reader.append(1)
            assert numbers(await take(b)) == [5]

    async def test_what_was_taken_and_not_acknowledged_is_not_handed_out_again(self) -> None:
        outside = Pulling(4)
        async with outside.subscription(
            delivery=Delivery.AT_MOST_ONCE, batch_size=4, retry=RetryPolicy(then=OnFailure.SKIP)
        ) as subscription:
            pairs = subscription.subscriber("pairs", buffer=2)
            assert numbers(await take(pairs)) == [1, 2]
            await pairs.leave()
            assert numbers(await take(subscription.subscriber("b"))) == [3, 4], "the other pair was not taken"

    async def test_what_a_taken_piece_leaves_parked_stays_before_the_rest_of_its_key(self) -> None:
        outside = Pulling(4)
        async with outside.subscription(delivery=Delivery.AT_MOST_ONCE, batch_size=4) as subscription:
            pairs = subscription.subscriber("pairs", buffer=2)
            assert numbers(await take(pairs)) == [1, 2]
            await pairs.leave()
            await until(lambda: outside.coordination.row(KEY).holder is None)
        parked = outside.coordination.row(KEY).parked
        assert {number: each.reason for number, each in parked.items()} == {
            1: "failed", 2: "failed", 3: "behind", 4: "behind",
        }  # fmt: skip
        assert outside.checkpoint == 4

    async def test_a_save_in_doubt_is_taken_back_too(self) -> None:
        outside = Pulling(4)
        answer = outside.checkpoints.save

        async def save(grant: Grant, progress: Progress, **more: Any) -> None:
            await answer(grant, progress, **more)
            if progress.checkpoint == 4:
                outside.checkpoints.save = answer  # type: ignore[method-assign]
                raise StoreUnavailable("no answer, though it took effect")

        async with outside.subscription(delivery=Delivery.AT_MOST_ONCE, batch_size=2) as subscription:
            subscriber = subscription.subscriber("a")
            batch = await take(subscriber)
            outside.checkpoints.save = save  # type: ignore[method-assign]
            await batch.ack()
            await until(lambda: outside.checkpoint == 4)
            await subscriber.leave()
            await until(lambda: outside.coordination.row(KEY).holder is None)
            assert outside.checkpoint == 2
            assert numbers(await take(subscription.subscriber("b"))) == [3, 4]
