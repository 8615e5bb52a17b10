"""Replays of a range, and a new version that takes over at an exact position."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from headwater.storage.errors import InvalidArgument
from headwater.storage.memory.subscriptions import MemoryCoordination
from headwater.storage.model import ALL
from headwater.subscriptions.core.phases import Phase
from headwater.subscriptions.options import Delivery, OnFailure, RetryPolicy, SubscriptionOptions
from headwater.subscriptions.ports import Delivered
from headwater.subscriptions.replay import RangeReader, Successor, replay
from headwater.subscriptions.runner import SubscriptionRunner
from tests.plugins.waiting import until

from .outside import KEY, Calling, ListReader, Outside

OFTEN = timedelta(milliseconds=5)


@pytest.mark.parity("L31")
async def test_a_range_is_handed_out_once_more_and_the_handler_knows() -> None:
    consumer = Calling()
    status = await replay("again", SubscriptionOptions(batch_size=4), [consumer], ListReader(20), after=5, until=15)
    assert consumer.numbers == list(range(6, 16))
    assert all(delivery.replaying for delivery in consumer.deliveries)
    assert status.watermark == 15


async def test_a_replay_that_fails_ends_with_its_reason() -> None:
    async def fail(_: Delivered) -> None:
        raise ValueError("no")

    options = SubscriptionOptions(retry=RetryPolicy(attempts=1, then=OnFailure.STOP))
    status = await replay("again", options, [Calling(fail)], ListReader(3), after=0, until=3)
    assert status.phase is Phase.FAILED
    assert "ValueError: no" in (status.reason or "")


async def test_exactly_once_effects_are_not_replayed() -> None:
    options = SubscriptionOptions(delivery=Delivery.EXACTLY_ONCE)
    with pytest.raises(InvalidArgument, match="rewind"):
        await replay("again", options, [Calling()], ListReader(3), after=0, until=3)


async def test_a_range_reader_hides_what_lies_behind_its_end() -> None:
    reader = RangeReader(ListReader(10), 4)
    page = await reader.read_page(ALL, 2, 10)
    assert ([event.number for event in page.events], page.read_to, page.head) == ([3, 4], 4, 4)
    assert (await reader.read_page(ALL, 4, 10)).events == ()
    assert await reader.head() == 4


class Old:
    """The old version, as the new one sees it."""

    def __init__(self, coordination: MemoryCoordination) -> None:
        self._coordination = coordination

    async def standing(self) -> tuple[int, bool]:
        row = self._coordination.row(KEY)
        return row.progress.checkpoint, row.phase == "finished"


async def test_a_new_version_takes_over_at_an_exact_position_without_overlap_or_gap() -> None:
    reader = ListReader(50)
    green, blue = Outside(reader), Outside(reader)
    old, new = Calling(), Calling()
    old_runner = await green.runner(old, batch_size=3, poll_interval=OFTEN)
    running_old = asyncio.create_task(old_runner.run())
    await until(lambda: len(old.numbers) >= 20)

    def watermark() -> int:
        return new_runner.status.watermark

    successor = Successor(reader, Old(green.coordination), watermark)
    (grant,) = await blue.leases.claim([KEY])
    new_runner = SubscriptionRunner(
        SubscriptionOptions(batch_size=4, poll_interval=OFTEN),
        grant,
        reader=successor,
        leases=blue.leases,
        checkpoints=blue.checkpoints,
        consumers=[new],
        replaying_to=lambda: successor.boundary,
    )
    running_new = asyncio.create_task(new_runner.run())
    reader.append(20)
    await until(lambda: len(new.numbers) >= 30)
    assert not successor.progress.taken_over
    old_runner.drain("the new version takes over")
    await running_old
    boundary = old.numbers[-1]
    reader.append(20)
    await until(lambda: watermark() == 90)
    new_runner.stop()
    await running_new
    first_live = [e.number for d in new.deliveries if not d.replaying for e in d.events]
    replayed = [e.number for d in new.deliveries if d.replaying for e in d.events]
    assert replayed == list(range(1, boundary + 1))
    assert first_live == list(range(boundary + 1, 91))
    assert successor.progress.taken_over
    assert successor.progress.seconds_to_go == 0
