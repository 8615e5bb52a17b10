"""Who takes the batches of a subscription, who does not any more, and what another subscription notices of that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest

from headwater.storage.errors import UnexpectedAck
from headwater.storage.leases import PartitionKey
from headwater.storage.memory.subscriptions import MemoryCheckpoints, MemoryCoordination, MemoryLeases
from headwater.storage.model import ALL
from headwater.subscriptions.heads import Heads
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.pull import PullSubscription
from headwater.subscriptions.pullers import PullSubscriber
from headwater.subscriptions.testing.builders import recorded
from tests.plugins.waiting import until
from tests.unit.pull.test_pulling import numbers, take
from tests.unit.runner.outside import ListReader, Recording


class Shared:
    """One process: its subscriptions share the store, the rows, the lease session and what is heard of new events."""

    def __init__(self, events: int = 0) -> None:
        self.reader = ListReader(events)
        self.heads = Heads(self.reader)
        self.coordination = MemoryCoordination()
        self.leases = MemoryLeases(self.coordination, "one process")
        self.observers: dict[str, Recording] = {}

    def append(self, count: int, stream: str = "stream-1") -> None:
        self.heads.announce(self.reader.append(count, stream))

    @staticmethod
    def key(name: str) -> PartitionKey:
        return PartitionKey(name, 0, sum(name.encode()))

    @asynccontextmanager
    async def subscription(self, name: str, **options: Any) -> AsyncIterator[PullSubscription]:
        self.observers[name] = Recording()
        async with PullSubscription(
            self.key(name),
            SubscriptionOptions(**({"poll_interval": timedelta(milliseconds=10)} | options)),
            reader=self.reader,
            leases=self.leases,
            checkpoints=MemoryCheckpoints(self.coordination),
            heads=self.heads,
            observer=self.observers[name],
        ) as subscription:
            yield subscription


@pytest.mark.parity("T276", "T282")
async def test_two_subscribers_share_one_subscription_and_its_events() -> None:
    shared = Shared(2)
    async with shared.subscription("s", consumers=2, partition_by="none") as subscription:
        a, b = subscription.subscriber("a"), subscription.subscriber("b")
        one, other = await take(a), await take(b)
        assert sorted(numbers(one) + numbers(other)) == [1, 2]
        assert one.epoch == other.epoch == 1, "one grant is theirs in common"
        await one.ack()
        await other.ack()
        assert subscription.status is not None
        assert subscription.status.watermark == 2


@pytest.mark.parity("T277", "T278", "T307", "E19")
async def test_each_subscriber_learns_once_that_the_lease_is_here_also_one_that_joins_later() -> None:
    shared = Shared()
    other = MemoryLeases(shared.coordination, "other process")
    (grant,) = await other.claim([shared.key("s")])
    async with shared.subscription("s", consumers=3) as subscription:
        told: list[str] = []

        async def learn(subscriber: PullSubscriber) -> None:
            await subscriber.subscribed()
            told.append(subscriber.name)

        early = [asyncio.create_task(learn(subscription.subscriber(name))) for name in ("a", "b")]
        claimed = shared.leases.claim
        asked = asyncio.Event()

        async def claim(keys: Any) -> Any:
            asked.set()
            return await claimed(keys)

        shared.leases.claim = claim  # type: ignore[method-assign]
        await asked.wait()
        assert told == [], "somebody else has the lease"
        await other.release([grant])
        async with asyncio.timeout(10):
            await asyncio.gather(*early)
            await learn(subscription.subscriber("c"))
        assert sorted(told) == ["a", "b", "c"]
        await until(lambda: shared.observers["s"].phases == ["running"])
        assert shared.coordination.row(shared.key("s")).epoch == grant.epoch + 1, "one grant, for all of them"


@pytest.mark.parity("T288")
async def test_whoever_joins_gets_at_once_what_waited_for_a_free_subscriber() -> None:
    shared = Shared(2)
    async with shared.subscription("s", consumers=2, partition_by="none") as subscription:
        first = await take(subscription.subscriber("a"))
        assert numbers(first) == [1]
        # Both are read, and nobody is there for the second one.
        await until(lambda: subscription.status is not None and subscription.status.unsettled == 2)
        assert numbers(await take(subscription.subscriber("b"))) == [2]
        assert not first.over


@pytest.mark.parity("T302", "T303")
@pytest.mark.parametrize("source", [ALL, "stream-1"])
@pytest.mark.parametrize("ends", ["the subscriber leaves", "the subscription is closed", "its task is cancelled"])
async def test_the_end_of_one_subscription_leaves_another_of_the_same_process_alone(source: str, ends: str) -> None:
    shared = Shared(2)
    async with (
        shared.subscription("ending", source=source) as ending,
        shared.subscription("staying", source=source) as staying,
    ):
        leaving, other = ending.subscriber("a"), staying.subscriber("a")
        held, mine = await take(leaving), await take(other)
        assert numbers(held) == numbers(mine) == [1]
        if ends == "the subscriber leaves":
            await leaving.leave()
        elif ends == "the subscription is closed":
            await ending.close()
        else:

            async def work() -> None:
                async with shared.subscription("third", source=source) as third:
                    async for _ in third:
                        reached.set()

            reached = asyncio.Event()
            task = asyncio.create_task(work())
            await reached.wait()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await ending.close()
        await until(lambda: shared.coordination.row(shared.key("ending")).holder is None)
        assert [batch async for batch in leaving] == []
        await mine.ack()
        shared.append(1, "another")
        shared.append(1)
        seen = []
        for _ in range(3 if source == ALL else 2):
            batch = await take(other)
            seen += numbers(batch)
            await batch.ack()
        assert seen == ([2, 3, 4] if source == ALL else [2, 4])
        assert shared.observers["staying"].phases == ["running"]
        assert shared.coordination.row(shared.key("ending")).progress.checkpoint == 0


@pytest.mark.parity("E7")
async def test_whoever_is_no_subscriber_any_more_acknowledges_nothing() -> None:
    shared = Shared(1)
    async with shared.subscription("s", consumers=2, batch_size=2) as subscription:
        a, b = subscription.subscriber("a"), subscription.subscriber("b")
        gone = await take(a)
        await a.leave()
        for ack in (gone.ack(), gone.ack(1), gone.ack_through(1), gone.nack("late")):
            with pytest.raises(UnexpectedAck):
                await ack
        assert subscription.status is not None
        assert subscription.status.watermark == 0
        again = await take(b)
        with pytest.raises(UnexpectedAck):
            await gone.ack()
        assert not again.over, "it is with somebody else, and not acknowledged"
        await again.ack()


@pytest.mark.parity("E9")
async def test_the_leaving_of_one_that_is_no_subscriber_does_nothing() -> None:
    shared = Shared(2)
    async with shared.subscription("s") as subscription, shared.subscription("t") as another:
        stranger = another.subscriber("a")
        gone = subscription.subscriber("a")
        await gone.leave()
        mine = subscription.subscriber("a")
        batch = await take(mine)
        await gone.leave()  # it has left, and somebody else has its name and its seat
        await batch.ack()
        following = await take(mine)
        assert numbers(following) == [2]
        await stranger.leave()  # of the same name and the same seat, but of another subscription
        await following.ack()
        assert subscription.status is not None
        assert subscription.status.watermark == 2


@pytest.mark.parity("T297")
async def test_with_room_for_one_event_two_subscribers_alternate_strictly() -> None:
    shared = Shared(20)
    async with shared.subscription("s", consumers=2, max_in_flight=1, partition_by="none") as subscription:
        takers = [subscription.subscriber("a"), subscription.subscriber("b")]
        for number in range(1, 21):
            batch = await take(takers[(number - 1) % 2])
            assert numbers(batch) == [number]
            await batch.ack()


@pytest.mark.parity("T299", "T300")
@pytest.mark.parametrize("most", [10, 100])
async def test_batches_of_five_for_each_stream_and_subscriber(most: int) -> None:
    shared = Shared()
    for stream in ("a", "b", "a", "b"):
        shared.append(5, stream)
    async with shared.subscription("s", consumers=2, batch_size=5, max_in_flight=most) as subscription:
        first, second = subscription.subscriber("first"), subscription.subscriber("second")
        seen: dict[str, list[list[int]]] = {"a": [], "b": []}
        for _ in range(2):
            one, other = await take(first), await take(second)
            for batch in (one, other):
                (stream,) = {event.stream for event in batch.events}
                seen[stream].append(numbers(batch))
                await batch.ack()
    assert seen == {"a": [[1, 2, 3, 4, 5], [11, 12, 13, 14, 15]], "b": [[6, 7, 8, 9, 10], [16, 17, 18, 19, 20]]}


@pytest.mark.parity("T325")
async def test_of_everything_events_are_acknowledged_by_their_number_in_the_store_wide_order() -> None:
    shared = Shared()
    shared.reader.events += [recorded(1, "a", version=1), recorded(2, "b", version=1), recorded(3, "a", version=2)]
    async with shared.subscription("s", batch_size=3) as subscription:
        batch = await take(subscription.subscriber("a"))
        await batch.ack(1)
        await batch.ack(3)
        assert subscription.status is not None
        assert subscription.status.watermark == 1
        await batch.ack(2)
        assert subscription.status.watermark == 3
