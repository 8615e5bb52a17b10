"""How fast do many live subscriptions of one process all get the same new events?

Fifty subscriptions in one host, and one: how often it reads events from the database stands beside the deliveries.
Counted from the first append until the last subscription has handled its last event, so that appending is part of the
time.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Final

from benchmarks.bench import Bench
from benchmarks.candidates import cluster, headwater
from benchmarks.handlers import CountReads, read_reads
from benchmarks.measure import RATE, Case, Sample, Target
from headwater.subscriptions.options import CURRENT

SUBSCRIPTIONS: Final = (1, 10, 50)
EVENTS: Final = 10_000
BATCH: Final = 500

READS: Final = "database reads"
DELIVERIES: Final = "deliveries/read"


class FanOut:
    """So many live subscriptions, which stay from round to round."""

    def __init__(self, running: cluster.Cluster, store: headwater.Store, names: list[str], events: int) -> None:
        self._running = running
        self._store = store
        self._names = names
        self._events = events
        self._rounds = 0

    async def round(self) -> Sample:
        """Append the events and wait until everybody has handled them."""
        before, reads = self._rounds * self._events, read_reads(self._running.folder)
        begun = time.monotonic()
        for _ in range(self._events // BATCH):
            await self._store.append_new(BATCH)
        note = await self._running.until_counted(self._names, before + self._events)
        self._rounds += 1
        deliveries = self._events * len(self._names)
        reads = read_reads(self._running.folder) - reads
        facts = {READS: reads, DELIVERIES: deliveries / max(reads, 1)}
        return Sample(deliveries, note.events - before * len(self._names), note.last - begun, facts=facts)


async def cases(bench: Bench) -> AsyncIterator[Case]:
    """Yield each number of subscriptions."""
    effort = bench.effort
    for number in (2,) if effort.quick else SUBSCRIPTIONS:
        name = f"fan-out, {number} subscriptions"
        if not effort.wants(name):
            continue
        async with bench.database() as url, bench.redis() as redis_url:
            await headwater.make_schema(url)
            async with headwater.store(url, redis_url) as store, cluster.running(url, redis_url=redis_url) as running:
                names = [running.name("fan-out") for _ in range(number)]
                await running.register(names, CountReads, batch_size=1_000, start=CURRENT)
                await running.until_live(names)
                events = 1_000 if effort.quick else EVENTS
                wanted = Target(headwater.NAME, figure=RATE, at_least=100_000 if number == 50 else None)
                candidates = {headwater.NAME: FanOut(running, store, names, events).round}
                # However many subscriptions there are: a few reads for each append, and the polls.
                shared = Target(headwater.NAME, figure=READS, at_most=3 * EVENTS // BATCH)
                yield Case(name, candidates, {"subscriptions": number, "events": events}, [wanted, shared])
