"""The owner handles parked events again, in the order of their key, and then lets the key go on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from headwater.storage.errors import StoreUnavailable
from headwater.storage.leases import Grant, ParkedEvent, Progress, RetryBegun, ToRetry
from headwater.storage.memory.subscriptions import MemoryCheckpoints, MemoryCoordination, MemoryParking
from headwater.storage.model import ALL, EVERYTHING, EventPage, Filter, RecordedEvent
from headwater.subscriptions.boundaries import Until
from headwater.subscriptions.core.failing import DIED
from headwater.subscriptions.core.phases import Phase
from headwater.subscriptions.fanout import SharedReader
from headwater.subscriptions.options import RetryPolicy
from headwater.subscriptions.ports import Delivered
from headwater.subscriptions.testing.builders import recorded
from headwater.subscriptions.testing.clock import VirtualClock
from tests.plugins.waiting import DEADLINE, until

from .outside import KEY, Calling, ListReader, Outside


class SlowParks(MemoryCheckpoints):
    """Keeps whoever parks an event that failed waiting until the test opens the gate."""

    def __init__(self, coordination: MemoryCoordination) -> None:
        super().__init__(coordination)
        self.gate = asyncio.Event()
        self.waiting = False

    async def park(self, grant: Grant, parked: Sequence[ParkedEvent]) -> None:
        if parked[0].reason == "failed":
            self.waiting = True
            await self.gate.wait()
        await super().park(grant, parked)


ONCE = RetryPolicy(attempts=1)
OFTEN = timedelta(milliseconds=10)


@pytest.mark.parity("L29")
@pytest.mark.parametrize("consumers", [0, 2])
async def test_a_mended_handler_gets_the_parked_events_of_a_key_in_order_and_then_the_new_ones(consumers: int) -> None:
    broken = True
    handled: list[int] = []

    async def handle(delivery: Delivered) -> None:
        (event,) = delivery.events
        if broken and event.stream == "a":
            raise ValueError("not yet")
        handled.append(event.position)

    reader = ListReader([recorded(1, "a"), recorded(2, "b"), recorded(3, "a"), recorded(4, "a"), recorded(5, "b")])
    outside = Outside(reader)
    parking = MemoryParking(outside.coordination)
    calling = [Calling(handle) for _ in range(max(1, consumers))]
    runner = await outside.runner(*calling, consumers=consumers, parking=parking, retry=ONCE, poll_interval=OFTEN)
    running = asyncio.create_task(runner.run())
    row = outside.coordination.row(KEY)
    await until(lambda: runner.status.watermark == 5)
    assert sorted(handled) == [2, 5]
    assert {position: each.reason for position, each in row.parked.items()} == {1: "failed", 3: "behind", 4: "behind"}

    parking.retry_parked(KEY)
    runner.retry_parked()
    await until(lambda: row.parked[1].attempts == 2)
    assert sorted(row.parked) == [1, 3, 4]

    broken = False
    parking.retry_parked(KEY)
    runner.retry_parked()
    await until(lambda: not row.parked)
    reader.events.append(recorded(6, "a"))
    await until(lambda: 6 in handled)
    assert [position for position in handled if position not in (2, 5)] == [1, 3, 4, 6]
    assert not row.parked
    runner.stop()
    await running


async def test_a_retry_that_nobody_tells_of_is_found_soon_after_the_first_event_was_parked() -> None:
    broken = True

    async def handle(_: Delivered) -> None:
        if broken:
            raise ValueError("not yet")

    outside = Outside(ListReader(1))
    parking = MemoryParking(outside.coordination)
    # Where nothing is parked it is looked ten times less often, which is longer than this test may take.
    often = timedelta(seconds=DEADLINE / 8)
    runner = await outside.runner(Calling(handle), parking=parking, retry=ONCE, poll_interval=often)
    running = asyncio.create_task(runner.run())
    row = outside.coordination.row(KEY)
    await until(lambda: 1 in row.parked)
    broken = False
    parking.retry_parked(KEY)
    await until(lambda: not row.parked)
    runner.stop()
    await running


async def test_the_handler_gets_the_corrected_payload_of_a_parked_event_and_only_of_that() -> None:
    seen: list[tuple[int, object]] = []

    async def handle(delivery: Delivered) -> None:
        for event in delivery.events:
            if event.data.get("total") == "ten":
                raise ValueError("no number")
            seen.append((event.position, event.data))

    reader = ListReader([recorded(1, "a", data={"total": "ten"}), recorded(2, "b", data={"total": 2})])
    outside = Outside(reader)
    parking = MemoryParking(outside.coordination)
    runner = await outside.runner(Calling(handle), parking=parking, retry=ONCE, poll_interval=OFTEN)
    running = asyncio.create_task(runner.run())
    row = outside.coordination.row(KEY)
    await until(lambda: runner.status.watermark == 2)
    parking.edit(KEY, 1, b'{"total": 10}')
    parking.retry_parked(KEY)
    runner.retry_parked()
    await until(lambda: not row.parked)
    assert seen == [(2, {"total": 2}), (1, {"total": 10})]
    assert reader.events[0].data == {"total": "ten"}
    runner.stop()
    await running


@pytest.mark.parity("L29")
async def test_an_event_behind_another_is_not_handled_before_that_one_is_durably_parked() -> None:
    handled: list[int] = []

    async def handle(delivery: Delivered) -> None:
        (event,) = delivery.events
        if event.position == 1:
            raise ValueError("poison")
        handled.append(event.position)

    reader = ListReader([recorded(1, "a"), recorded(2, "a"), recorded(3, "a")])
    outside = Outside(reader)
    outside.checkpoints = slow = SlowParks(outside.coordination)
    parking = MemoryParking(outside.coordination)
    runner = await outside.runner(Calling(handle), parking=parking, retry=ONCE, poll_interval=OFTEN)
    running = asyncio.create_task(runner.run())
    row = outside.coordination.row(KEY)
    await until(lambda: slow.waiting)
    reads = reader.reads
    await until(lambda: reader.reads > reads + 5)  # it looks as often for parked events
    assert (handled, row.parked) == ([], {})
    slow.gate.set()
    await until(lambda: runner.status.watermark == 3)
    assert {position: each.reason for position, each in row.parked.items()} == {1: "failed", 2: "behind", 3: "behind"}
    assert handled == []
    runner.stop()
    await running


async def test_a_parked_event_that_ends_each_owner_that_handles_it_is_set_aside_again() -> None:
    deaths = 0

    async def handle(delivery: Delivered) -> None:
        nonlocal deaths
        if delivery.attempt > 1:
            deaths += 1
            await asyncio.Event().wait()  # and its owner is stopped meanwhile
        raise ValueError("not yet")

    twice = RetryPolicy(attempts=2)
    outside = Outside(ListReader(1))
    parking = MemoryParking(outside.coordination)
    row = outside.coordination.row(KEY)
    runner = await outside.runner(Calling(handle), parking=parking, retry=ONCE, poll_interval=OFTEN)
    running = asyncio.create_task(runner.run())
    await until(lambda: 1 in row.parked and runner.status.checkpoint == 1)
    parking.retry_parked(KEY)
    for death in (1, 2):
        await until(lambda death=death: deaths == death)  # type: ignore[misc]
        runner.stop("its process has ended")
        await running
        runner = await outside.runner(Calling(handle), parking=parking, retry=twice, poll_interval=OFTEN)
        running = asyncio.create_task(runner.run())
    await until(lambda: row.parked[1].attempts == 3)
    assert row.parked[1].error == DIED
    assert not row.retrying
    parking.retry_parked(KEY)
    await until(lambda: deaths == 3)
    runner.stop()
    await running


async def test_a_retry_that_is_cancelled_before_its_turn_is_not_made() -> None:
    free = asyncio.Event()
    attempts: list[int] = []

    async def handle(delivery: Delivered) -> None:
        (event,) = delivery.events
        attempts.append(event.position)
        if delivery.attempt > 1:
            await free.wait()
        else:
            raise ValueError("not yet")

    outside = Outside(ListReader([recorded(1, "a"), recorded(2, "b")]))
    parking = MemoryParking(outside.coordination)
    row = outside.coordination.row(KEY)
    runner = await outside.runner(Calling(handle), parking=parking, retry=ONCE, poll_interval=OFTEN)
    running = asyncio.create_task(runner.run())
    await until(lambda: sorted(row.parked) == [1, 2] and runner.status.checkpoint == 2)
    parking.retry_parked(KEY)
    runner.retry_parked()
    await until(lambda: attempts == [1, 2, 1])
    row.retrying.discard(2)
    free.set()
    await until(lambda: 1 not in row.parked)
    outside.reader.append(1)
    await until(lambda: runner.status.watermark == 3)
    assert attempts == [1, 2, 1, 3]
    assert sorted(row.parked) == [2, 3]
    runner.stop()
    await running


class CountingReader(SharedReader):
    """Counts how often it is asked for the store-wide order."""

    asked = 0

    async def read_page(self, source: str, after: int, limit: int, *, where: Filter = EVERYTHING) -> EventPage:
        page = await super().read_page(source, after, limit, where=where)
        self.asked += source == ALL
        return page


class Mendable:
    """Fails at each event until it is mended, and keeps what it handled."""

    def __init__(self) -> None:
        self.broken = True
        self.handled: list[int] = []

    async def __call__(self, delivery: Delivered) -> None:
        if self.broken:
            raise ValueError("not yet")
        self.handled += [event.position for event in delivery.events]


async def test_a_parked_event_that_the_shared_reader_has_not_come_to_is_not_taken_for_one_that_was_deleted() -> None:
    reader, clock, handler = ListReader(3), VirtualClock(), Mendable()
    shared = CountingReader(reader, clock=clock, max_age=1.0)
    for _ in range(2):  # from now on the newest events are kept, and were looked for just now
        await shared.read_page(ALL, 3, 1)
    reader.append(1, "a")  # nobody announces it; who reads the stream itself finds it
    outside = Outside(reader)
    outside.reader = shared  # type: ignore[assignment]
    parking = MemoryParking(outside.coordination)
    runner = await outside.runner(Calling(handler), source="a", parking=parking, retry=ONCE, poll_interval=OFTEN)
    running = asyncio.create_task(runner.run())
    row = outside.coordination.row(KEY)
    await until(lambda: 4 in row.parked and runner.status.checkpoint == 4)
    asked, handler.broken = shared.asked, False
    parking.retry_parked(KEY)
    await until(lambda: shared.asked > asked)
    clock.advance(2.0)
    await until(lambda: not row.parked)
    assert handler.handled == [4]
    runner.stop()
    await running
    await shared.close()


class StreamReader(ListReader):
    """A stream whose numbers are far below the positions of its events."""

    async def read_page(self, source: str, after: int, limit: int, *, where: Filter = EVERYTHING) -> EventPage:
        def place(event: RecordedEvent) -> int:
            return event.position if source == ALL else event.number

        found = [event for event in self.events if place(event) > after]
        head = max(place(event) for event in self.events)
        return EventPage(found[:limit], place(found[limit - 1]) if len(found) > limit else max(after, head), head)


@pytest.mark.parametrize("final", [False, True])
async def test_a_parked_event_is_handled_again_also_where_its_position_is_beyond_the_boundary_of_a_stream(
    final: bool,
) -> None:
    handler = Mendable()
    outside = Outside(StreamReader([recorded(50 + n, "a", number=n, version=n) for n in (1, 2, 3)]))
    parking = MemoryParking(outside.coordination)
    boundaries = outside.checkpoints if final else Until(2)
    runner = await outside.runner(
        Calling(handler),
        source="a",
        parking=parking,
        boundaries=boundaries,
        retry=ONCE,
        poll_interval=OFTEN,
    )
    running = asyncio.create_task(runner.run())
    row = outside.coordination.row(KEY)
    await until(lambda: 52 in row.parked and runner.status.checkpoint >= 2)
    handler.broken = False
    parking.retry_parked(KEY)
    await until(lambda: 51 not in row.parked and 52 not in row.parked)
    assert handler.handled[:2] == [51, 52]
    runner.stop()
    await running


async def test_a_parked_event_is_not_handed_out_when_the_lease_may_have_passed_on_while_it_was_counted() -> None:
    class Late(MemoryParking):
        async def begin_retry(self, grant: Grant, position: int) -> RetryBegun | None:
            begun = await super().begin_retry(grant, position)
            outside.leases.valid_until = 99.0
            counted.set()
            return begun

    handler, counted = Mendable(), asyncio.Event()
    outside = Outside(ListReader(1))
    parking = Late(outside.coordination)
    clock = VirtualClock(100)
    runner = await outside.runner(Calling(handler), parking=parking, retry=ONCE, poll_interval=OFTEN, clock=clock)
    running = asyncio.create_task(runner.run())
    row = outside.coordination.row(KEY)
    await until(lambda: 1 in row.parked)
    handler.broken = False
    parking.retry_parked(KEY)
    await counted.wait()
    outside.leases.end_session()
    await running
    assert handler.handled == []


class SlowLooks(MemoryParking):
    """Keeps whoever looks at what is parked waiting until the test opens the gate."""

    def __init__(self, coordination: MemoryCoordination) -> None:
        super().__init__(coordination)
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = False

    async def to_retry(self, grant: Grant, *, limit: int = 100) -> list[ToRetry]:
        found = await super().to_retry(grant, limit=limit)
        self.waiting = bool(found)
        await self.gate.wait()
        return found


class BrokenRewinds(MemoryCheckpoints):
    """Makes no rewind until the test lets it."""

    refused = 0
    mended = False

    async def rewind(self, grant: Grant, progress: Progress, **more: Any) -> None:
        if not self.mended:
            self.refused += 1
            raise StoreUnavailable("the database is away")
        await super().rewind(grant, progress, **more)


async def test_a_look_at_parked_events_during_which_the_owner_rewinds_loses_no_lease() -> None:
    handler = Mendable()
    outside = Outside(ListReader([recorded(1, "a"), recorded(2, "b")]))
    parking = SlowLooks(outside.coordination)
    runner = await outside.runner(Calling(handler), parking=parking, retry=ONCE, poll_interval=OFTEN)
    running = asyncio.create_task(runner.run())
    row = outside.coordination.row(KEY)
    await until(lambda: sorted(row.parked) == [1, 2] and runner.status.checkpoint == 2)
    handler.broken = False
    parking.gate.clear()
    parking.retry_parked(KEY)
    await parking.begin_retry(runner.grant, 1)  # as if its owner had died of it: the look sets it aside again
    await until(lambda: parking.waiting)
    runner.rewind(0)
    await until(lambda: row.rewinds == 1)
    parking.gate.set()
    await until(lambda: row.parked[1].error == DIED, what="waiting for the next look")
    outside.reader.append(1, "c")
    await until(lambda: sorted(handler.handled) == [2, 3])
    assert runner.status.phase is Phase.RUNNING
    runner.stop()
    await running


async def test_while_a_rewind_fails_nothing_is_written_of_parked_events() -> None:
    handler = Mendable()
    outside = Outside(ListReader([recorded(1, "a"), recorded(2, "b")]))
    parking, checkpoints = MemoryParking(outside.coordination), BrokenRewinds(outside.coordination)
    outside.checkpoints = checkpoints
    runner = await outside.runner(Calling(handler), parking=parking, retry=ONCE, poll_interval=OFTEN)
    running = asyncio.create_task(runner.run())
    row = outside.coordination.row(KEY)
    await until(lambda: sorted(row.parked) == [1, 2] and runner.status.checkpoint == 2)
    handler.broken = False
    runner.rewind(0)
    await until(lambda: checkpoints.refused == 1)
    grant = replace(runner.grant, rewinds=0)
    row.retrying.add(1)
    await parking.begin_retry(grant, 1)
    await until(lambda: checkpoints.refused == 3)
    checkpoints.mended = True
    await until(lambda: row.parked[1].error == DIED)
    assert row.rewinds == 4, "each try has a number of its own"
    assert runner.status.phase is Phase.RUNNING
    runner.stop()
    await running
