"""What is passed to a pull subscription: taken, or refused with a typed error, and everything goes on."""

from __future__ import annotations

from typing import Any

import pytest

from headwater.storage.errors import HeadwaterError, InvalidArgument, SubscriptionConflict, UnexpectedAck
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.transient import transient
from tests.plugins.waiting import until
from tests.unit.pull.test_pulling import Pulling, numbers, take
from tests.unit.runner.outside import ListReader

NO_NUMBERS: list[Any] = [None, "1", 1.0, [], {}, object(), True, -1, 2**64, b"1"]


@pytest.mark.parity("T343", "L41")
async def test_what_is_no_number_acknowledges_nothing() -> None:
    outside = Pulling(3)
    async with outside.subscription(batch_size=3) as subscription:
        batch = await take(subscription.subscriber("a"))
        for wrong in NO_NUMBERS:
            with pytest.raises(InvalidArgument):
                await batch.ack(wrong)
            with pytest.raises(InvalidArgument):
                await batch.ack(1, wrong)
            with pytest.raises(InvalidArgument):
                await batch.ack_through(wrong)
        for wrong in (0, 4, 2**63 - 1):
            with pytest.raises(UnexpectedAck):
                await batch.ack(1, wrong)
        for wrong in ({"error": 7}, {"error": None}, {"action": "park"}, {"action": 1}):
            with pytest.raises(InvalidArgument):
                await batch.nack(**wrong)
        assert (numbers(batch), batch.over) == ([1, 2, 3], False)
        await batch.ack()
        await until(lambda: subscription.status is not None and subscription.status.watermark == 3)


@pytest.mark.parity("E25")
async def test_what_is_no_name_or_no_option_is_no_subscription() -> None:
    async with Pulling(0).subscription() as subscription:
        for wrong in (None, 7, b"a", ["a"]):
            with pytest.raises(InvalidArgument):
                subscription.subscriber(wrong)  # type: ignore[arg-type]
    options: Any
    for name, options, after in (
        ("", SubscriptionOptions(), 0),
        (None, SubscriptionOptions(), 0),
        ("\ud800", SubscriptionOptions(), 0),
        ("a", {}, 0),
        ("a", None, 0),
        ("a", SubscriptionOptions(), -1),
        ("a", SubscriptionOptions(), "0"),
    ):
        with pytest.raises(HeadwaterError):
            transient(name, options, ListReader(0), after=after)  # type: ignore[arg-type]


async def test_a_nack_that_is_refused_leaves_a_part_of_a_delivery_as_it_was() -> None:
    outside = Pulling(3)
    async with outside.subscription(batch_size=3) as subscription:
        batch = await take(subscription.subscriber("a", buffer=2))
        wrong: Any = 7
        with pytest.raises(InvalidArgument):
            await batch.nack(wrong)
        await batch.ack()
        assert (numbers(batch), batch.over) == ([1, 2], True)


async def test_a_second_iteration_is_refused_with_what_is_to_be_done() -> None:
    async with Pulling(1).subscription(consumers=2) as subscription:
        async for _ in subscription:
            with pytest.raises(SubscriptionConflict, match=r"somebody without a name .* give each a name"):
                await anext(aiter(subscription))
            break
