"""Replays of a range, and a new version that takes over at an exact position."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from headwater.storage.errors import InvalidArgument
from headwater.storage.leases import Boundary, Grant, ParkedEvent, PartitionKey
from headwater.storage.memory.subscriptions import MemoryCoordination
from headwater.storage.model import ALL, EventPage, RecordedEvent
from headwater.subscriptions.boundaries import BoundedReader, Until
from headwater.subscriptions.core.phases import Phase
from headwater.subscriptions.observer import Observer
from headwater.subscriptions.options import Delivery, OnFailure, RetryPolicy, SubscriptionOptions
from headwater.subscriptions.ports import Delivered, Nack
from headwater.subscriptions.replay import RangeReplay, replay
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


async def test_what_earlier_sets_of_partitions_had_settled_is_handed_out_again_too() -> None:
    world, consumer = Outside(ListReader(9)), Calling()
    (grant,) = await world.leases.claim([KEY])
    replaying = RangeReplay(
        SubscriptionOptions(),
        replace(grant, seam=[[None, [9], [0]]]),
        reader=world.reader,
        leases=world.leases,
        checkpoints=world.checkpoints,
        consumers=[consumer],
        until=5,
    )
    await replaying.run()
    assert consumer.numbers == [1, 2, 3, 4, 5]


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


async def test_a_failure_in_a_replay_is_passed_over_and_told() -> None:
    class Skips(Observer):
        def skipped(self, key: PartitionKey, event: RecordedEvent, error: str, attempts: int) -> None:
            skipped.append(event.number)

    async def fail(delivery: Delivered) -> None:
        if delivery.events[0].number == 2:
            raise ValueError("no")

    skipped: list[int] = []
    options = SubscriptionOptions(retry=RetryPolicy(attempts=1))
    status = await replay(
        "again", options, [Calling(fail)], ListReader(3), after=0, until=3, side_effects=False, observer=Skips()
    )
    assert (status.watermark, skipped) == (3, [2])


async def test_a_failure_of_a_class_with_its_own_policy_holds_up_no_key_of_a_replay_either() -> None:
    class Skips(Observer):
        def skipped(self, key: PartitionKey, event: RecordedEvent, error: str, attempts: int) -> None:
            skipped.append(event.position)

    async def fail(delivery: Delivered) -> None:
        if delivery.events[0].position == 2:
            raise ValueError("no")

    skipped: list[int] = []
    consumer = Calling(fail)
    policy = RetryPolicy(by_error=((ValueError, RetryPolicy(attempts=1)),))
    reader = ListReader(4)
    await replay("again", SubscriptionOptions(retry=policy), [consumer], reader, after=0, until=4, observer=Skips())
    assert (skipped, consumer.numbers) == ([2], [1, 2, 3, 4])


@pytest.mark.parametrize("consumers", [0, 1])
async def test_what_a_handler_itself_wants_parked_holds_up_no_key_of_a_replay_either(consumers: int) -> None:
    class Told(Observer):
        def skipped(self, key: PartitionKey, event: RecordedEvent, error: str, attempts: int) -> None:
            skipped.append(event.position)

        def parked(self, key: PartitionKey, parked: Sequence[ParkedEvent]) -> None:
            parked_events.extend(parked)

    async def fail(delivery: Delivered) -> None:
        if delivery.events[0].position == 2:
            raise Nack("no", OnFailure.PARK)

    skipped: list[int] = []
    parked_events: list[ParkedEvent] = []
    consumer = Calling(fail)
    options = SubscriptionOptions(consumers=consumers)
    status = await replay("again", options, [consumer], ListReader(4), after=0, until=4, observer=Told())
    assert (status.watermark, skipped, parked_events) == (4, [2], [])
    assert consumer.numbers == [1, 2, 3, 4], "of one key"


async def test_a_reader_with_a_boundary_hides_what_lies_behind_it_until_all_before_is_settled() -> None:
    (grant,) = await Outside(ListReader()).leases.claim([KEY])
    settled = 0
    reader = BoundedReader(ListReader(10), Until(4), grant, lambda: settled)
    page = await reader.read_page(ALL, 2, 10)
    assert ([event.number for event in page.events], page.read_to) == ([3, 4], 4)
    settled = 4
    assert await reader.read_page(ALL, 4, 10) == EventPage((), 4, 4)
    assert await reader.head() == 10


async def test_a_look_at_the_boundary_that_began_before_it_was_moved_is_not_believed() -> None:
    class Slow:
        until, asked, gate = 0, asyncio.Event(), asyncio.Event()

        async def boundary(self, _: Grant) -> Boundary:
            found = Boundary(self.until)
            self.asked.set()
            await self.gate.wait()
            return found

    (grant,) = await Outside(ListReader()).leases.claim([KEY])
    slow = Slow()
    reader = BoundedReader(ListReader(10), slow, grant, lambda: 0)
    late = asyncio.create_task(reader.read_page(ALL, 0, 10))
    await slow.asked.wait()
    slow.until = 4  # a rewind
    reader.forget()
    slow.gate.set()
    await late
    page = await reader.read_page(ALL, 0, 10)
    assert (page.read_to, reader.boundary.until) == (4, 4)


@pytest.mark.parametrize("side_effects", [True, False])
async def test_after_a_rewind_the_handler_knows_exactly_what_it_gets_again(side_effects: bool) -> None:
    outside = Outside(ListReader(10))
    consumer = Calling()
    runner = await outside.runner(consumer, batch_size=4, poll_interval=OFTEN, boundaries=outside.checkpoints)
    running = asyncio.create_task(runner.run())
    await until(lambda: runner.status.watermark == 10)
    runner.rewind(5, side_effects=side_effects)
    await until(lambda: consumer.numbers[10:] == [6, 7, 8, 9, 10])
    outside.reader.append(3)
    await until(lambda: runner.status.watermark == 13)
    runner.drain()
    await running
    flags = [(e.number, d.replaying, d.side_effects) for d in consumer.deliveries for e in d.events]
    assert flags == [
        *((n, False, True) for n in range(1, 11)),
        *((n, True, side_effects) for n in range(6, 11)),
        *((n, False, True) for n in range(11, 14)),
    ]


async def test_what_was_rewound_is_still_a_replay_for_the_next_owner() -> None:
    outside = Outside(ListReader(10))
    first, second = Calling(), Calling()
    runner = await outside.runner(first, poll_interval=OFTEN, boundaries=outside.checkpoints)
    running = asyncio.create_task(runner.run())
    await until(lambda: runner.status.watermark == 10)
    runner.pause("to look")
    runner.rewind(2, side_effects=False)
    await until(lambda: outside.checkpoint == 2)
    runner.stop()
    await running
    outside.reader.append(2)
    runner = await outside.runner(second, batch_size=100, poll_interval=OFTEN, boundaries=outside.checkpoints)
    running = asyncio.create_task(runner.run())
    await until(lambda: runner.status.watermark == 12)
    runner.stop()
    await running
    assert [(d.replaying, d.side_effects, [e.number for e in d.events]) for d in second.deliveries] == [
        (True, False, list(range(3, 11))),
        (False, True, [11, 12]),
    ]


class Following:
    """The boundary of a new version: the old one's checkpoint, until that has ended for good."""

    def __init__(self, old: MemoryCoordination) -> None:
        self._old = old

    async def boundary(self, grant: Grant) -> Boundary:
        row = self._old.row(KEY)
        return Boundary(row.progress.checkpoint, final=row.phase == "finished", side_effects=False)


async def test_a_new_version_takes_over_at_an_exact_position_without_overlap_or_gap() -> None:
    reader = ListReader(50)
    green, blue = Outside(reader), Outside(reader)
    old, new = Calling(), Calling()
    old_runner = await green.runner(old, batch_size=3, poll_interval=OFTEN)
    running_old = asyncio.create_task(old_runner.run())
    await until(lambda: len(old.numbers) >= 20)
    new_runner = await blue.runner(new, batch_size=4, poll_interval=OFTEN, boundaries=Following(green.coordination))
    running_new = asyncio.create_task(new_runner.run())
    reader.append(20)
    await until(lambda: len(new.numbers) >= 30)
    old_runner.drain("the new version takes over")
    await running_old
    boundary = old.numbers[-1]
    reader.append(20)
    await until(lambda: new_runner.status.watermark == 90)
    new_runner.stop()
    await running_new
    live = [e.number for d in new.deliveries if not d.replaying for e in d.events]
    replayed = [e.number for d in new.deliveries if d.replaying for e in d.events]
    assert replayed == list(range(1, boundary + 1))
    assert live == list(range(boundary + 1, 91))
    assert all(delivery.side_effects is not delivery.replaying for delivery in new.deliveries)
