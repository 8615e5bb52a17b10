"""Subscriptions that leave nothing behind."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.transient import transient
from tests.unit.pull.test_pulling import Pulling, numbers, take
from tests.unit.runner.outside import ListReader

OPTIONS = SubscriptionOptions(batch_size=10, poll_interval=timedelta(milliseconds=10))


@pytest.mark.parity("T329", "T330")
@pytest.mark.parametrize("after", [0, 1])
async def test_it_begins_at_the_same_place_each_time(after: int) -> None:
    reader = ListReader(3)
    for _ in range(2):
        async with transient("watch", OPTIONS, reader, after=after) as subscription:
            batch = await take(subscription.subscriber("a"))
            assert numbers(batch) == [1, 2, 3][after:]
            await batch.ack()


@pytest.mark.parity("T332")
async def test_it_does_not_touch_the_checkpoint_of_a_durable_one_of_the_same_name() -> None:
    outside = Pulling(3)
    async with outside.subscription(batch_size=2) as subscription:
        await (await take(subscription.subscriber("a"))).ack()
    assert outside.checkpoint == 2
    async with transient("tested", OPTIONS, outside.reader) as subscription:
        batch = await take(subscription.subscriber("a"))
        assert numbers(batch) == [1, 2, 3]
        await batch.ack()
    assert outside.checkpoint == 2
    async with outside.subscription(batch_size=2) as subscription:
        assert numbers(await take(subscription.subscriber("a"))) == [3]


@pytest.mark.parity("T331")
async def test_a_durable_one_that_comes_after_it_begins_at_the_origin() -> None:
    outside = Pulling(3)
    async with transient("tested", OPTIONS, outside.reader) as subscription:
        batch = await take(subscription.subscriber("a"))
        assert numbers(batch) == [1, 2, 3]
        await batch.ack()
    async with outside.subscription(batch_size=10) as subscription:
        assert numbers(await take(subscription.subscriber("a"))) == [1, 2, 3]
