"""Reading only so far: replays of a range, and a new version that takes over from an old one at an exact position.

Decides nothing about delivery: readers in front of a reader, and what drives them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from headwater.storage.errors import InvalidArgument
from headwater.storage.leases import PartitionKey
from headwater.storage.memory.subscriptions import MemoryCheckpoints, MemoryCoordination, MemoryLeases, MemoryParking
from headwater.storage.model import EVERYTHING, EventPage, Filter
from headwater.subscriptions.core.phases import Phase
from headwater.subscriptions.observer import Observer, Status
from headwater.subscriptions.options import Delivery, SubscriptionOptions
from headwater.subscriptions.ports import Consumer, EventReader
from headwater.subscriptions.runner import SubscriptionRunner


class RangeReader:
    """Shows a source only up to a number; what is behind it seems not to be there yet."""

    def __init__(self, reader: EventReader, until: int) -> None:
        self._reader = reader
        self.until = until

    async def read_page(self, source: str, after: int, limit: int, *, where: Filter = EVERYTHING) -> EventPage:
        """Read a page; nothing above ``until``."""
        until = self.until
        if after >= until:
            return EventPage((), after, max(after, until))
        page = await self._reader.read_page(source, after, limit, where=where)
        if page.read_to <= until:
            return replace(page, head=min(page.head, until))
        return EventPage([e for e in page.events if e.number <= until], until, until, page.stream_id)

    async def head(self) -> int:
        """Return the head, or ``until`` when that is lower."""
        return min(await self._reader.head(), self.until)


async def replay(
    name: str,
    options: SubscriptionOptions,
    consumers: Sequence[Consumer],
    reader: EventReader,
    *,
    after: int,
    until: int,
    observer: Observer | None = None,
) -> Status:
    """Hand out once more what lies after one number and up to another; returns when all of it is settled.

    Nothing of the subscription's own progress is touched: this one is kept in memory, and a crash ends the replay. The
    handler sees ``context.replaying``. Parked and skipped events are told to the observer only. Returns early, with the
    phase and the reason, when the failure policy or the breaker stops it. Raises InvalidArgument for exactly-once
    delivery, whose effects are there already.
    """
    if options.delivery is Delivery.EXACTLY_ONCE:
        raise InvalidArgument("delivery", "exactly-once effects are not made twice: rewind the subscription instead")
    coordination = MemoryCoordination()
    key = PartitionKey(name, 0, 0)
    coordination.start_at(key, after)
    leases = MemoryLeases(coordination, "replay")
    (grant,) = await leases.claim([key])
    runner = SubscriptionRunner(
        options,
        grant,
        reader=RangeReader(reader, until),
        leases=leases,
        checkpoints=MemoryCheckpoints(coordination),
        parking=MemoryParking(coordination),
        consumers=consumers,
        observer=observer,
        replaying_to=lambda: until,
    )
    running = asyncio.create_task(runner.run(), name=f"headwater-replay-{name}")
    try:
        while not running.done() and runner.status.watermark < until:
            if runner.status.phase in (Phase.FAILED, Phase.PAUSED):
                return runner.status
            await asyncio.wait([running], timeout=0.02)
        runner.drain("the range is replayed")
        return await running
    finally:
        runner.stop("the replay was ended")
        await asyncio.wait([running])


class Predecessor(Protocol):
    """The old version that a new one takes over from."""

    async def standing(self) -> tuple[int, bool]:
        """Return its durable checkpoint, and whether it has ended for good: drained, with nothing in flight."""
        ...


@dataclass(frozen=True, slots=True)
class Catching:
    """How far a successor is."""

    watermark: int
    target: int
    """The old version's checkpoint, or where it has ended."""
    seconds_to_go: float | None
    """At the rate so far; None before there is one, 0 when it has taken over."""
    taken_over: bool


class Successor:
    """A reader that lets a new version follow an old one, and pass it only when that has ended.

    ``watermark`` tells how far the new version's runner is; give that runner ``boundary`` as ``replaying_to``.

    1. Until then it reads nothing above the old version's checkpoint; all of that is a replay.
    2. The first event after the old version's last checkpoint is the first that is not a replay: no gap, no overlap.
    """

    def __init__(
        self, reader: EventReader, predecessor: Predecessor, watermark: Callable[[], int], *, start: int = 0
    ) -> None:
        self._reader = reader
        self._settled = watermark
        self._range = RangeReader(reader, start)
        self._predecessor = predecessor
        self._start = start
        self._begun = time.monotonic()
        self._over = False

    @property
    def boundary(self) -> int:
        """The last number that the old version has handled: to be handed out as a replay."""
        return self._range.until

    @property
    def progress(self) -> Catching:
        """How far it is."""
        watermark, elapsed = self._settled(), time.monotonic() - self._begun
        done, left = watermark - self._start, max(0, self.boundary - watermark)
        to_go = None if done <= 0 else left * elapsed / done
        return Catching(watermark, self.boundary, 0.0 if self._passed else to_go, self._passed)

    @property
    def _passed(self) -> bool:
        return self._over and self._settled() >= self.boundary

    async def read_page(self, source: str, after: int, limit: int, *, where: Filter = EVERYTHING) -> EventPage:
        """Read a page of what may be handed out by now."""
        if self._passed:
            return await self._reader.read_page(source, after, limit, where=where)
        if not self._over:
            self._range.until, self._over = await self._predecessor.standing()
        return await self._range.read_page(source, after, limit, where=where)

    async def head(self) -> int:
        """Return the store's head."""
        return await self._reader.head()
