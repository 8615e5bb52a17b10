"""Append what happened, in the order in which it happened, by several writers in step.

Appends through the store's public interface only.
"""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final

from examples.flights.events import Happening, new_event
from headwater import EventStore, NewEvent, StoreUnavailable, StreamAppend

WRITERS: Final = 4
STEP: Final = 1000
"""How many events the writers share at a time. No event of a step is stored before all of the step before it are."""
AGAIN: Final = 0.2
"""Seconds until an append that the database did not answer is sent again."""


async def feed(
    store: EventStore, happenings: Iterable[Happening], before_step: Callable[[], Awaitable[None]]
) -> AsyncIterator[int]:
    """Append everything, a step at a time; yields how many events each step had. Awaits ``before_step`` before each.

    A stream always has the same writer, so its events are in order also within a step.
    """
    source = iter(happenings)
    while step := list(itertools.islice(source, STEP)):
        await before_step()
        shares: list[dict[str, list[NewEvent]]] = [{} for _ in range(WRITERS)]
        for happening in step:
            stream = happening.flight.stream
            share = shares[zlib.crc32(stream.encode()) % WRITERS]
            share.setdefault(stream, []).append(new_event(happening))
        await asyncio.gather(*(_append(store, share) for share in shares if share))
        yield len(step)


async def _append(store: EventStore, share: dict[str, list[NewEvent]]) -> None:
    """Append one writer's share, again when the database did not answer: the same ids are never stored twice."""
    appends = [StreamAppend(stream, events) for stream, events in share.items()]
    while True:
        try:
            await store.append_to_many(appends)
        except StoreUnavailable:
            await asyncio.sleep(AGAIN)
        else:
            return
