"""One read of each new event for all the subscriptions of a process.

Keeps the newest events in memory and serves from there whoever is not far behind; the others read for themselves. Never
holds more than it was told to.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Coroutine
from operator import attrgetter
from typing import Any, Final, TypeAlias

from headwater.storage.filters import matches
from headwater.storage.model import ALL, EVERYTHING, EventPage, Filter, RecordedEvent
from headwater.subscriptions.heads import Heads
from headwater.subscriptions.ports import Clock, EventReader

ReadBehind: TypeAlias = Callable[[int, int], Awaitable[EventPage]]
"""Reads the newest events after a position, so many at most, when an append that is yet to come has been committed."""

_position: Final = attrgetter("position")


class SharedReader:
    """An event reader in front of another one; shared by many subscriptions of the store-wide order.

    1. What it keeps is an unbroken run of the order, up to the last read.
    2. It reads again only after a head was announced, or when the last look is older than ``max_age`` seconds.
    3. Reads of the newest events are made one at a time, however many subscriptions wait for them. Beside it, one waits
       in the server for an append that is yet to come, and holds nobody up.
    4. An announced head is read at once while somebody has all that is kept: whoever asks then finds it, or the read of
       it, under way. Nothing is read ahead for those who do not ask.
    5. Whoever was given all that was kept is told of what comes after it, also when a look had begun before that brings
       it.
    """

    def __init__(
        self,
        reader: EventReader,
        heads: Heads | None = None,
        *,
        keep: int = 10_000,
        page_size: int = 1000,
        max_age: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        self._reader = reader
        self._keep = keep
        self._page_size = page_size
        self._max_age = max_age
        self._monotonic = time.monotonic if clock is None else clock.monotonic
        self._events: list[RecordedEvent] = []
        self._start: int | None = None
        """Everything after this position, up to ``_end``, is kept; None before the first look at the newest events."""
        self._end = 0
        self._head = 0
        self._announced = 0
        """The highest head that was announced and not looked for yet."""
        self._awaited = False
        """Whether somebody has got everything that is kept, and waits for more."""
        self._looked_at = float("-inf")
        self._look: asyncio.Task[None] | None = None
        self._ahead: asyncio.Task[None] | None = None
        """The look that waits for an append which is yet to come."""
        self._session = 0
        """By which session of the server."""
        self._next: tuple[int, int, ReadBehind] | None = None
        """The next such look: when everything up to this head is taken, by which session, and how it reads."""
        self._heads = heads
        self._unlisten = heads.listen(self._on_head) if heads is not None else None

    async def read_page(self, source: str, after: int, limit: int, *, where: Filter = EVERYTHING) -> EventPage:
        """Read a page, from memory when it is new enough; see the event store's method."""
        if source != ALL or (self._start is not None and after < self._start):
            return await self._reader.read_page(source, after, limit, where=where)
        if self._start is None:
            page = await self._reader.read_page(source, after, limit, where=where)
            if self._start is None and page.read_to == page.head:
                self._start = self._end = self._head = page.read_to
            return page
        for _ in range(2):  # the first look may have begun before the head was announced that the reader came for
            if after >= self._end and (self._look is not None or self._outdated()):
                await self._look_once()
        if after < self._start:
            return await self._reader.read_page(source, after, limit, where=where)
        page = self._kept(after, limit, where)
        if page.read_to >= self._end:
            self._await_more()
        self._look_ahead()
        return page

    def look_ahead(self, head: int, session: int, read: ReadBehind) -> None:
        """Read with the next append of the session whose last one came to ``head``, as soon as that is here and taken.

        Call it before ``head`` is announced.
        """
        if head > self._end and self._look is None and session == self._session:
            # What the session has appended ends the look that waits for it: nobody need look once more.
            self._look = self._ahead
        self._next = (head, session, read)
        self._look_ahead()

    @property
    def kept(self) -> int:
        """How many events are held in memory."""
        return len(self._events)

    async def head(self) -> int:
        """Ask the store for its head."""
        return await self._reader.head()

    async def close(self) -> None:
        """Listen to heads no more, and end a read that is under way."""
        if self._unlisten is not None:
            self._unlisten()
        self._next = None
        looks = {look for look in (self._look, self._ahead) if look is not None}
        for look in looks:  # all of them before the first ends: the end of one may be a reason for another
            look.cancel()
        if looks:
            await asyncio.wait(looks)

    def _on_head(self, head: int) -> None:
        if head > self._end:
            self._announced = max(self._announced, head)
            if self._awaited:
                self._begin_look()

    def _outdated(self) -> bool:
        behind = max(self._announced, self._head) > self._end
        return behind or self._monotonic() - self._looked_at >= self._max_age

    async def _look_once(self) -> None:
        """Wait for a look that begins now at the latest; the waiters share it."""
        # Shielded: one waiter that is cancelled must not take the page from the others.
        await asyncio.shield(self._begin_look())

    def _begin_look(self) -> asyncio.Task[None]:
        if self._look is None:
            self._awaited = False
            self._look = _task(self._look_further())
        return self._look

    def _look_ahead(self) -> None:
        """Begin the look that waits for the next append, if its time has come."""
        if self._next is not None and self._ahead is None and self._awaited and self._end >= self._next[0]:
            (_, self._session, read), self._next = self._next, None
            self._ahead = _task(self._look_behind(read))

    def _await_more(self) -> None:
        """Note that somebody has got everything that is kept; what is known to be there is read at once."""
        if self._announced > self._end:
            self._begin_look()
        self._awaited = True

    async def _look_further(self) -> None:
        announced, self._announced = self._announced, 0
        begun = self._monotonic()
        try:
            page = await self._reader.read_page(ALL, self._end, self._page_size)
        except BaseException:
            self._announced = max(announced, self._announced)
            raise
        finally:
            self._look = None
        self._looked_at = begun
        self._keep_news(page, tell=self._awaited)  # who took all that was kept meanwhile does not wait for this look

    async def _look_behind(self, read: ReadBehind) -> None:
        try:
            page = await read(self._end, self._page_size)
        finally:
            if self._look is self._ahead:
                self._look = None
            self._ahead = None
        if page.read_to > self._end:
            self._looked_at = self._monotonic()
            self._awaited = False
            self._keep_news(page, tell=True)
        elif self._awaited:
            self._await_more()
        self._look_ahead()

    def _keep_news(self, page: EventPage, *, tell: bool) -> None:
        news = max(page.head, page.read_to) > self._end
        self._keep_page(page)
        if news and tell and self._heads is not None:
            self._heads.announce(max(self._head, self._end))

    def _keep_page(self, page: EventPage) -> None:
        # Two looks may be under way: what one of them has brought is passed over in the other's page.
        self._events.extend(page.events[bisect_right(page.events, self._end, key=_position) :])
        self._end, self._head = max(self._end, page.read_to), max(self._head, page.head)
        if self._announced <= self._end:
            self._announced = 0
        if len(self._events) > self._keep:
            gone = len(self._events) - self._keep // 2
            self._start = self._events[gone - 1].position
            del self._events[:gone]

    def _kept(self, after: int, limit: int, where: Filter) -> EventPage:
        first = bisect_right(self._events, after, key=_position)
        head = max(self._head, self._end)
        if not where:
            events = self._events[first : first + limit]
            cut = first + limit < len(self._events)
            return EventPage(events, events[-1].position if cut else max(after, self._end), head)
        found: list[RecordedEvent] = []
        for event in self._events[first:]:
            if len(found) == limit:
                return EventPage(found, found[-1].position, head)
            if matches(where, event):
                found.append(event)
        return EventPage(found, max(after, self._end), head)


def _task(look: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(look)
    # Read even when every waiter was cancelled, so that an error is not reported as forgotten.
    task.add_done_callback(lambda look: None if look.cancelled() else look.exception())
    return task
