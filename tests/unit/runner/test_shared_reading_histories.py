"""Whatever order reads end in, each subscription gets every event once, in order, and as soon as it may."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from headwater.storage.errors import StoreUnavailable
from headwater.storage.model import ALL, EVERYTHING, EventPage, Filter, RecordedEvent
from headwater.subscriptions.fanout import SharedReader
from headwater.subscriptions.heads import Heads
from headwater.subscriptions.testing.builders import recorded
from headwater.subscriptions.testing.clock import VirtualClock

KEEP = 12
ODD = Filter(streams=("odd-1",))


class Server:
    """A store whose reads see what is committed at one step, and answer at a later one."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.events: list[RecordedEvent] = []
        self.steps: list[asyncio.Future[None]] = []
        self.waiting: list[asyncio.Future[None]] = []
        """The same of the look that waits for an append."""
        self.failing = 0.1
        """How often a read fails."""

    def append(self) -> int:
        """Commit some events."""
        for _ in range(self.chance.randint(1, 3)):
            number = len(self.events) + 1
            self.events.append(recorded(number, "odd-1" if number % 2 else "even-1"))
        return len(self.events)

    async def read_page(self, source: str, after: int, limit: int, *, where: Filter = EVERYTHING) -> EventPage:
        """Read as the store does."""
        return await self._read(self.steps, after, limit, where)

    async def behind(self, after: int, limit: int) -> EventPage:
        """Read as the store does behind a gate."""
        page = await self._read(self.waiting, after, limit, EVERYTHING)
        if self.chance.random() < 0.3:
            return EventPage((), after, after)
        read_to = page.events[-1].position if page.events else after
        return replace(page, read_to=read_to, head=read_to)

    async def _read(self, steps: list[asyncio.Future[None]], after: int, limit: int, where: Filter) -> EventPage:
        await self._step(steps)
        head = len(self.events)
        events = [e for e in self.events[after:head] if where is EVERYTHING or e.stream == "odd-1"]
        await self._step(steps)
        if self.chance.random() < self.failing:
            raise StoreUnavailable("the database is gone")
        cut = len(events) > limit
        return EventPage(events[:limit], events[limit - 1].position if cut else max(after, head), head)

    async def _step(self, steps: list[asyncio.Future[None]]) -> None:
        step = asyncio.get_running_loop().create_future()
        steps.append(step)
        await step

    async def head(self) -> int:
        """Return the highest position."""
        return len(self.events)


class Reader:
    """Asks as a subscription does: after a page that did not bring all, and whenever it is told of a head."""

    def __init__(self, server: Server, shared: SharedReader, heads: Heads, where: Filter) -> None:
        self._server, self._shared, self._where = server, shared, where
        self.at = 0
        self._wanted = True
        self.reading: asyncio.Task[EventPage] | None = None
        heads.listen(self._told)

    def _told(self, head: int) -> None:
        self._wanted = self._wanted or head > self.at

    def go_on(self) -> None:
        """Take what was read, and read on if there is reason to."""
        if self.reading is not None and self.reading.done():
            done, self.reading = self.reading, None
            if done.cancelled() or done.exception() is not None:
                self._wanted = True
            else:
                self._take(done.result())
        if self._wanted and self.reading is None:
            self._wanted = False
            limit = self._server.chance.randint(1, 5)
            self.reading = asyncio.create_task(self._shared.read_page(ALL, self.at, limit, where=self._where))

    def _take(self, page: EventPage) -> None:
        between = self._server.events[self.at : page.read_to]
        expected = [e.position for e in between if self._where is EVERYTHING or e.stream == "odd-1"]
        assert [event.position for event in page.events] == expected
        assert self.at <= page.read_to <= len(self._server.events)
        self._wanted = self._wanted or (page.read_to > self.at and page.read_to < page.head)
        self.at = page.read_to


class History:
    """One run: appends, hints that come late or never, reads that end in any order, callers who give up."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.server = Server(self.chance)
        self.heads = Heads(self.server)
        self.shared = SharedReader(self.server, self.heads, keep=KEEP, page_size=4, max_age=3600, clock=VirtualClock())
        wanted = (EVERYTHING, EVERYTHING, ODD)
        self.readers = [Reader(self.server, self.shared, self.heads, where) for where in wanted]
        self.hints: list[tuple[int, int | None]] = []

    async def run(self) -> None:
        """Do what comes to mind, then see that everybody gets everything."""
        acts: list[Callable[[], object]] = [
            self._append,
            self._hint,
            self._hint,
            partial(self._release, self.server.steps),
            partial(self._release, self.server.steps),
            partial(self._release, self.server.waiting),
            self._give_up,
        ]
        for _ in range(80):
            self.chance.choice(acts)()
            await self._settle(self.chance.sample(self.readers, 2))
        self.server.failing = 0.0
        self.heads.announce(len(self.server.events))
        await self._drain(self.server.steps, self.server.waiting)
        # Whoever is told of an append need not wait for the look that waits for another one.
        for session in (3, 4):
            self._tell(self.server.append(), session)
            await self._drain(self.server.steps)
        await self._close()

    async def _close(self) -> None:
        self._tell(self.server.append(), 1)
        await self._settle(self.readers)
        self._release(self.chance.choice((self.server.steps, self.server.waiting)))
        await self.shared.close()
        asking = {reader.reading for reader in self.readers if reader.reading is not None}
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def _append(self) -> None:
        self.hints.append((self.server.append(), self.chance.choice((None, 1, 1, 2))))

    def _hint(self) -> None:
        if self.hints:
            head, session = self.hints.pop(self.chance.randrange(min(2, len(self.hints))))
            if self.chance.random() < 0.8:
                self._tell(head, session)

    def _tell(self, head: int, session: int | None) -> None:
        if session is not None:
            self.shared.look_ahead(head, session, self.server.behind)
        self.heads.announce(head)

    def _release(self, steps: list[asyncio.Future[None]]) -> None:
        if steps:
            step = steps.pop(self.chance.randrange(len(steps)))
            if not step.done():
                step.set_result(None)

    def _give_up(self) -> None:
        reading = self.chance.choice(self.readers).reading
        if reading is not None and self.chance.random() < 0.3:
            reading.cancel()

    async def _settle(self, readers: list[Reader]) -> None:
        for _ in range(self.chance.randint(1, 8)):
            await asyncio.sleep(0)
        for reader in readers:
            reader.go_on()
        assert self.shared.kept <= KEEP + 4
        assert len([step for step in self.server.waiting if not step.done()]) <= 1

    async def _drain(self, *kinds: list[asyncio.Future[None]]) -> None:
        quiet = 0
        while quiet < 20:
            quiet += 1
            for steps in kinds:
                while steps:
                    self._release(steps)
                    quiet = 0
            await self._settle(self.readers)
        assert [reader.at for reader in self.readers] == [len(self.server.events)] * len(self.readers)


@pytest.mark.parametrize("start", range(0, 400, 100))
async def test_each_event_is_read_once_whatever_order_reads_end_in(start: int) -> None:
    for seed in range(start, start + 100):
        try:
            await History(seed).run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
