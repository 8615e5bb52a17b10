"""Many subscriptions share one read of each new event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from headwater.storage.errors import StoreUnavailable
from headwater.storage.model import ALL, EventPage, Filter
from headwater.subscriptions.fanout import SharedReader
from headwater.subscriptions.heads import Heads
from headwater.subscriptions.testing.clock import VirtualClock
from tests.plugins.waiting import until

from .outside import KEY, Calling, ListReader, Outside


async def test_the_reads_grow_with_the_events_and_not_with_the_subscriptions() -> None:
    async def reads_with(subscriptions: int) -> int:
        reader = ListReader(10)
        heads = Heads(reader)
        shared = SharedReader(reader, heads, clock=VirtualClock())  # no look grows old: only announcements are read for
        await shared.read_page(ALL, 0, 100)
        outsides = [Outside(reader) for _ in range(subscriptions)]
        consumers = [Calling() for _ in outsides]
        runners = []
        for outside, consumer in zip(outsides, consumers, strict=True):
            outside.reader = shared  # type: ignore[assignment]
            outside.coordination.start_at(KEY, 10)
            runners.append(await outside.runner(consumer, heads=heads, poll_interval=timedelta(hours=1)))
        running = [asyncio.create_task(runner.run()) for runner in runners]
        before = reader.reads
        for _ in range(5):
            heads.announce(reader.append(10))
            await until(lambda: all(len(c.numbers) == len(reader.events) - 10 for c in consumers))
        for runner in runners:
            runner.stop()
        await asyncio.gather(*running)
        await shared.close()
        return reader.reads - before

    assert await reads_with(20) <= await reads_with(1) + 2


async def test_who_is_far_behind_reads_for_himself_and_gets_the_same() -> None:
    reader = ListReader(100)
    shared = SharedReader(reader, keep=10)
    await shared.read_page(ALL, 100, 10)
    page = await shared.read_page(ALL, 0, 30)
    assert [event.number for event in page.events] == list(range(1, 31))
    assert (page.read_to, page.head) == (30, 100)


async def test_new_events_come_in_order_without_a_gap_also_when_the_memory_is_full() -> None:
    reader, clock = ListReader(1), VirtualClock()
    shared = SharedReader(reader, keep=8, page_size=5, clock=clock)
    seen, after = [], 0
    slow_seen, slow = [], 0
    for round_ in range(40):
        reader.append(3)
        clock.advance(2)
        page = await shared.read_page(ALL, after, 4)
        seen += [event.number for event in page.events]
        after = page.read_to
        if round_ % 7 == 0:
            page = await shared.read_page(ALL, slow, 50)
            slow_seen += [event.number for event in page.events]
            slow = page.read_to
    assert seen == list(range(1, len(seen) + 1))
    assert slow_seen == list(range(1, len(slow_seen) + 1))


async def test_a_filter_is_applied_to_what_is_kept_and_passed_over() -> None:
    reader = ListReader(2)
    shared = SharedReader(reader, max_age=0.0)
    await shared.read_page(ALL, 2, 10)
    reader.append(3, "order-1")
    reader.append(3, "other-1")
    page = await shared.read_page(ALL, 2, 10, where=Filter(categories=("order",)))
    assert [event.number for event in page.events] == [3, 4, 5]
    assert page.read_to == 8
    page = await shared.read_page(ALL, 2, 2, where=Filter(stream_prefix="order-"))
    assert ([event.number for event in page.events], page.read_to) == ([3, 4], 4)


async def test_an_old_look_is_good_enough_until_a_head_is_announced() -> None:
    reader, clock = ListReader(1), VirtualClock()
    heads = Heads(reader)
    shared = SharedReader(reader, heads, max_age=10, clock=clock)
    await shared.read_page(ALL, 1, 10)
    await shared.read_page(ALL, 1, 10)
    reads = reader.reads
    for _ in range(20):
        assert (await shared.read_page(ALL, 1, 10)).events == []
    assert reader.reads == reads
    heads.announce(reader.append(1))
    assert len((await shared.read_page(ALL, 1, 10)).events) == 1
    reader.append(1)
    clock.advance(11)
    assert len((await shared.read_page(ALL, 2, 10)).events) == 1
    await shared.close()


async def test_an_announced_head_is_read_once_before_anybody_asks_if_somebody_waits_for_more() -> None:
    reader = ListReader(1)
    heads = Heads(reader)
    shared = SharedReader(reader, heads, max_age=3600)
    await shared.read_page(ALL, 1, 10)
    await shared.read_page(ALL, 1, 10)
    reads = reader.reads
    heads.announce(reader.append(1))
    await until(lambda: reader.reads == reads + 1)
    assert [event.number for event in (await shared.read_page(ALL, 1, 10)).events] == [2]
    assert reader.reads == reads + 1
    heads.announce(reader.append(1))
    await until(lambda: reader.reads == reads + 2)
    heads.announce(reader.append(1))  # nobody has asked for what was read last
    assert [event.number for event in (await shared.read_page(ALL, 2, 10)).events] == [3]
    assert reader.reads == reads + 2
    await shared.close()


async def test_who_comes_with_an_announcement_gets_it_although_an_earlier_look_is_under_way() -> None:
    reader = ListReader(1)
    heads = Heads(reader)
    shared = SharedReader(reader, heads, max_age=3600)
    await shared.read_page(ALL, 1, 10)
    await shared.read_page(ALL, 1, 10)
    reads, reader.gate = reader.reads, asyncio.Event()
    heads.announce(99)  # not true: there is nothing yet
    await until(lambda: reader.reads == reads + 1)
    heads.announce(reader.append(1))
    asking = asyncio.create_task(shared.read_page(ALL, 1, 10))
    reader.gate.set()
    assert [event.number for event in (await asking).events] == [2]
    await shared.close()


@pytest.mark.parametrize("limit", [10, 1], ids=["while a look is under way", "while nobody has looked"])
async def test_whoever_is_given_all_that_is_kept_is_told_of_what_is_known_to_follow(limit: int) -> None:
    reader = ListReader(1)
    heads = Heads(reader)
    shared = SharedReader(reader, heads, max_age=3600)
    await shared.read_page(ALL, 1, 10)
    heads.announce(reader.append(2))
    await shared.read_page(ALL, 1, limit)
    reader.gate = asyncio.Event()
    heads.announce(reader.append(1))
    # It was told of that before it asks, as a subscription that was busy is.
    page = await shared.read_page(ALL, 1, 10)
    assert (page.read_to, page.head) == (3, 3)
    told: list[int] = []
    heads.listen(told.append)
    reader.gate.set()
    await until(lambda: told == [4])
    assert [event.number for event in (await shared.read_page(ALL, 3, 10)).events] == [4]
    await shared.close()


class Behind:
    """A read that ends when the append it waits for does."""

    def __init__(self, reader: ListReader) -> None:
        self.reader = reader
        self.asked: list[int] = []
        self.committed = asyncio.Event()
        self.waiting = False
        self.blind = False
        """Whether it gives nothing, whatever is there."""
        self.broken = False

    async def __call__(self, after: int, limit: int) -> EventPage:
        self.asked.append(after)
        self.waiting = True
        await self.committed.wait()
        self.waiting = False
        if self.broken:
            raise StoreUnavailable("the database is gone")
        events = [] if self.blind else self.reader.events[after : after + limit]
        return EventPage(events, after + len(events), after + len(events))


SESSION = 7


class Ahead:
    """A shared reader all of whose events are taken, beside what waits for the next append."""

    def __init__(self) -> None:
        self.reader = ListReader(1)
        self.heads = Heads(self.reader)
        self.shared = SharedReader(self.reader, self.heads, max_age=3600, clock=VirtualClock())
        self.behind = Behind(self.reader)
        self.told: list[int] = []

    async def begin(self) -> None:
        """Take what is there, and begin to wait."""
        for _ in range(2):
            await self.shared.read_page(ALL, 1, 10)
        self.shared.look_ahead(1, SESSION, self.behind)
        await until(lambda: self.behind.asked == [1])
        self.heads.listen(self.told.append)

    def append(self) -> None:
        """Let the session append, and tell of it by a hint."""
        head = self.reader.append(1)
        self.shared.look_ahead(head, SESSION, Behind(self.reader))
        self.heads.announce(head)

    async def read(self, after: int) -> list[int]:
        """Return the numbers of the events after a position."""
        return [event.number for event in (await self.shared.read_page(ALL, after, 10)).events]


@pytest.fixture
async def ahead() -> AsyncIterator[Ahead]:
    """What waits for the next append of a session."""
    ahead = Ahead()
    await ahead.begin()
    yield ahead
    await ahead.shared.close()


async def test_what_the_next_append_brings_is_announced_and_is_not_read_once_more(ahead: Ahead) -> None:
    reads = ahead.reader.reads
    ahead.reader.append(2)
    ahead.behind.committed.set()
    await until(lambda: ahead.told == [3])
    assert await ahead.read(1) == [2, 3]
    ahead.heads.announce(3)
    assert await ahead.read(3) == []
    assert ahead.reader.reads == reads


async def test_whoever_comes_with_the_hint_waits_for_the_look_that_has_it(ahead: Ahead) -> None:
    reads = ahead.reader.reads
    ahead.append()
    asking = asyncio.create_task(ahead.read(1))
    ahead.behind.committed.set()
    assert await asking == [2]
    assert ahead.reader.reads == reads


async def test_nothing_more_is_waited_for_until_somebody_has_taken_what_came(ahead: Ahead) -> None:
    head = ahead.reader.append(1)
    ahead.behind.committed.set()
    await until(lambda: ahead.told == [head])
    later = Behind(ahead.reader)
    ahead.shared.look_ahead(head, SESSION, later)
    ahead.heads.announce(head)
    await ahead.reader.read_page(ALL, 0, 10)  # whatever has begun is under way now
    assert later.asked == []
    assert await ahead.read(1) == [2]
    await until(lambda: later.asked == [2])


async def test_what_others_append_is_not_held_up_by_the_look_that_waits(ahead: Ahead) -> None:
    ahead.heads.announce(ahead.reader.append(1))
    assert await ahead.read(1) == [2]
    head = ahead.reader.append(1)
    later = Behind(ahead.reader)
    ahead.shared.look_ahead(head, SESSION + 1, later)
    ahead.heads.announce(head)
    assert await ahead.read(2) == [3]
    assert (await ahead.read(3), later.asked) == ([], [])
    ahead.reader.append(1)
    ahead.behind.committed.set()  # it began after the first event, and has them all
    await until(lambda: later.asked == [4] or ahead.told[-1] == 4)
    assert await ahead.read(1) == [2, 3, 4]
    assert await ahead.read(4) == []
    await until(lambda: later.asked == [4])


async def test_a_look_that_ends_after_the_one_that_waited_brings_nothing_twice(ahead: Ahead) -> None:
    ahead.reader.gate = asyncio.Event()
    reads = ahead.reader.reads
    ahead.heads.announce(ahead.reader.append(1))
    asking = asyncio.create_task(ahead.read(1))
    await until(lambda: ahead.reader.reads == reads + 1)
    ahead.behind.committed.set()
    await until(lambda: 2 in ahead.told[1:])
    ahead.reader.gate.set()
    assert await asking == [2]
    assert (ahead.shared.kept, await ahead.read(1)) == (1, [2])


async def test_the_next_append_is_waited_for_once_everything_before_it_is_taken() -> None:
    ahead = Ahead()
    ahead.shared.look_ahead(1, SESSION, ahead.behind)  # nobody has asked for anything yet
    await ahead.read(0)
    assert ahead.behind.asked == []
    assert await ahead.read(1) == []
    await until(lambda: ahead.behind.asked == [1])
    later = Behind(ahead.reader)
    ahead.behind.committed.set()  # for nothing
    ahead.shared.look_ahead(2, SESSION, later)
    await until(lambda: not ahead.behind.waiting)
    assert later.asked == []
    ahead.heads.announce(ahead.reader.append(1))
    assert await ahead.read(1) == [2]
    assert await ahead.read(2) == []
    await until(lambda: later.asked == [2])
    await ahead.shared.close()


async def test_an_append_that_came_to_nothing_leaves_everything_as_it_was(ahead: Ahead) -> None:
    ahead.behind.committed.set()
    assert await ahead.read(1) == []
    ahead.heads.announce(ahead.reader.append(1))
    assert await ahead.read(1) == [2]
    assert ahead.behind.asked == [1]


async def test_a_hint_whose_look_has_nothing_leads_to_another_look(ahead: Ahead) -> None:
    ahead.behind.blind = True  # as when it takes too long
    ahead.append()
    asking = asyncio.create_task(ahead.read(1))
    ahead.behind.committed.set()
    assert await asking == [2]


async def test_a_look_that_fails_fails_for_those_who_wait_for_it_and_the_next_does_not(ahead: Ahead) -> None:
    ahead.behind.broken = True
    ahead.append()
    asking = asyncio.create_task(ahead.read(1))
    ahead.behind.committed.set()
    with pytest.raises(StoreUnavailable):
        await asking
    assert await ahead.read(1) == [2]


async def test_one_waiter_that_is_cancelled_takes_nothing_from_the_others() -> None:
    reader = ListReader(1)
    shared = SharedReader(reader, max_age=0.0)
    await shared.read_page(ALL, 1, 10)
    reader.append(1)
    reader.gate = asyncio.Event()
    first, second = (asyncio.create_task(shared.read_page(ALL, 1, 10)) for _ in range(2))
    reads = reader.reads
    await until(lambda: reader.reads == reads + 1)
    first.cancel()
    reader.gate.set()
    assert len((await second).events) == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_an_error_reaches_every_waiter_and_the_next_read_tries_again() -> None:
    reader = ListReader(1)
    shared = SharedReader(reader, max_age=0.0)
    await shared.read_page(ALL, 1, 10)
    reader.broken = True
    with pytest.raises(StoreUnavailable):
        await shared.read_page(ALL, 1, 10)
    reader.broken = False
    reader.append(1)
    assert len((await shared.read_page(ALL, 1, 10)).events) == 1
