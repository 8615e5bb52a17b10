"""The outside of a runner: events in a list, rows in memory, consumers that do what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from headwater.storage.errors import StoreUnavailable
from headwater.storage.filters import matches
from headwater.storage.leases import PartitionKey
from headwater.storage.memory.subscriptions import MemoryCheckpoints, MemoryCoordination, MemoryLeases
from headwater.storage.model import ALL, EVERYTHING, EventPage, Filter, RecordedEvent
from headwater.subscriptions.observer import Observer, Status
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.ports import Delivered
from headwater.subscriptions.runner import SubscriptionRunner
from headwater.subscriptions.testing.builders import recorded

KEY = PartitionKey("tested", 0, 1)


class ListReader:
    """Reads from a list of events, and counts how often it is asked."""

    def __init__(self, events: Sequence[RecordedEvent] | int = 0) -> None:
        self.events = [recorded(n) for n in range(1, events + 1)] if isinstance(events, int) else list(events)
        self.reads = 0
        self.broken = False
        self.gate: asyncio.Event | None = None

    def append(self, count: int, stream: str = "stream-1") -> int:
        first = len(self.events) + 1
        self.events += [recorded(n, stream) for n in range(first, first + count)]
        return len(self.events)

    async def read_page(self, source: str, after: int, limit: int, *, where: Filter = EVERYTHING) -> EventPage:
        self.reads += 1
        if self.broken:
            raise StoreUnavailable("the database is away")
        fitting = [e for e in self.events[after:] if source in (ALL, e.stream) and matches(where, e)]
        head = len(self.events)
        if self.gate is not None:
            await self.gate.wait()
        else:
            await asyncio.sleep(0)
        cut = len(fitting) > limit
        return EventPage(fitting[:limit], fitting[limit - 1].number if cut else max(after, head), head)

    async def head(self) -> int:
        self.reads += 1
        return len(self.events)


class Recording(Observer):
    """Keeps the phases, the refusals and what failed."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.refusals: list[int] = []
        self.failures: list[str] = []

    def status_changed(self, key: PartitionKey, status: Status) -> None:
        self.phases.append(status.phase.value)

    def failed(self, key: PartitionKey, delivery: Delivered, error: BaseException, seconds: float) -> None:
        self.failures.append(str(error))

    def refused(self, key: PartitionKey, delivery_id: int) -> None:
        self.refusals.append(delivery_id)


class Calling:
    """A consumer that calls a function, and keeps what it handled."""

    def __init__(self, call: Callable[[Delivered], Awaitable[None]] | None = None) -> None:
        self.deliveries: list[Delivered] = []
        self._call = call

    async def handle(self, delivery: Delivered) -> None:
        self.deliveries.append(delivery)
        if self._call is not None:
            await self._call(delivery)

    async def close(self) -> None:
        pass

    @property
    def numbers(self) -> list[int]:
        return [event.number for delivery in self.deliveries for event in delivery.events]


class Outside:
    """One owner with everything in memory."""

    def __init__(self, reader: ListReader, coordination: MemoryCoordination | None = None) -> None:
        self.reader = reader
        self.coordination = coordination or MemoryCoordination()
        self.leases = MemoryLeases(self.coordination, "owner")
        self.checkpoints = MemoryCheckpoints(self.coordination)
        self.observer = Recording()

    async def runner(self, *consumers: Calling, **more: Any) -> SubscriptionRunner:
        given = {
            name: more.pop(name)
            for name in ("heads", "clock", "present", "sieve", "parking", "boundaries")
            if name in more
        }
        (grant,) = await self.leases.claim([KEY])
        return SubscriptionRunner(
            SubscriptionOptions(**more),
            grant,
            reader=self.reader,
            leases=self.leases,
            checkpoints=self.checkpoints,
            consumers=consumers,
            observer=self.observer,
            **given,
        )

    @property
    def checkpoint(self) -> int:
        return self.coordination.row(KEY).progress.checkpoint
