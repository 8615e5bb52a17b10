"""Transient subscriptions: following a stream, or ALL, from now on, without a checkpoint.

Never saves anything and never keeps more than one page in memory: a slow reader reads later, not less.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from headwater.storage.errors import StoreUnavailable
from headwater.storage.model import EventPage, Filter, RecordedEvent
from headwater.storage.outages import Outage

log = logging.getLogger(__name__)

PAGE_SIZE: Final = 500
POLL_INTERVAL: Final = 0.25
"""Seconds after which a source is looked at although nobody has said that it moved."""


class PageReader(Protocol):
    """What a transient subscription needs of a store."""

    async def read_page(self, source: str, after: int, limit: int, *, where: Filter = ...) -> EventPage: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a source stands: its highest number, and which incarnation of the stream counts it."""

    number: int
    stream_id: int | None = None


class Wakeups:
    """Wakes the transient subscriptions of a store: after its own appends, and by hints of those of others.

    Hints are listened to only while there is a subscription.
    """

    def __init__(self) -> None:
        self.hints: Callable[[], AsyncIterator[int]] | None = None
        """Where hints come from, if there are any: listens until cancelled."""
        self._waiting: set[asyncio.Event] = set()
        self._listening: asyncio.Task[None] | None = None

    def moved(self) -> None:
        """Let every subscription look at its source. Call it on the event loop of the store."""
        for event in self._waiting:
            event.set()

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[asyncio.Event]:
        """Lend an event that is set whenever something may have moved."""
        event = asyncio.Event()
        self._waiting.add(event)
        if self.hints is not None and self._listening is None:
            self._listening = asyncio.create_task(self._pass_on(self.hints), name="headwater-transient-hints")
        try:
            yield event
        finally:
            self._waiting.discard(event)
            if self._listening is not None and not self._waiting:
                listening, self._listening = self._listening, None
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    async def _pass_on(self, hints: Callable[[], AsyncIterator[int]]) -> None:
        async for _ in hints():
            self.moved()


@asynccontextmanager
async def follow(
    reader: PageReader,
    wakeups: Wakeups,
    source: str,
    standing: Callable[[str], Awaitable[Place]],
    *,
    selector: Callable[[RecordedEvent], bool] | None,
    mapper: Callable[[RecordedEvent], Any] | None,
    where: Filter,
) -> AsyncIterator[AsyncIterator[Sequence[Any]]]:
    """Fix the starting point on entering, then yield what follows it, in order, each event once.

    What the selector or the mapper raises ends this subscription, and no other.
    """
    start = await standing(source)
    async with (
        wakeups.listen() as woken,
        aclosing(_pages(reader, woken, source, start, where)) as pages,
        aclosing(_chosen(pages, selector, mapper)) as batches,
    ):
        yield batches


async def _pages(
    reader: PageReader, woken: asyncio.Event, source: str, start: Place, where: Filter
) -> AsyncGenerator[Sequence[RecordedEvent]]:
    after, stream_id = start.number, start.stream_id
    outage = Outage(log, f"following {source!r} waits for the database", f"following {source!r} goes on")
    while True:
        woken.clear()
        try:
            page = await reader.read_page(source, after, PAGE_SIZE, where=where)
        except StoreUnavailable as error:
            outage.goes_on(error)
            await asyncio.sleep(POLL_INTERVAL)
            continue
        outage.ends()
        if page.stream_id != stream_id and page.stream_id is not None:
            # The stream was made, or made again: it counts from 1.
            reborn, stream_id = stream_id is not None, page.stream_id
            if reborn and after:
                after = 0
                continue
        after = page.read_to
        if page.events:
            yield page.events
        elif page.read_to >= page.head:
            # Not wait_for: on Python 3.11 that swallows a cancellation which arrives together with the wake-up.
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_INTERVAL):
                    await woken.wait()


async def _chosen(
    pages: AsyncIterator[Sequence[RecordedEvent]],
    selector: Callable[[RecordedEvent], bool] | None,
    mapper: Callable[[RecordedEvent], Any] | None,
) -> AsyncGenerator[Sequence[Any]]:
    async for events in pages:
        chosen = events if selector is None else [event for event in events if selector(event)]
        if chosen:
            yield chosen if mapper is None else [mapper(event) for event in chosen]
