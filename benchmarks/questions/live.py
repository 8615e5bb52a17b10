"""How long after an append is called does the handler get the event, at 100 appends a second?

Headwater's handler runs in another process; the library's subscription is a thread of the appending one. Without Redis,
Headwater finds new events by polling.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from benchmarks.bench import Bench
from benchmarks.candidates import cluster, headwater, library
from benchmarks.handlers import Latency, read_latencies
from benchmarks.measure import P50, P99, Candidate, Case, Sample, Target
from headwater.subscriptions.options import CURRENT

RATE: Final = 100
SECONDS: Final = 5.0
NAMES: Final = (headwater.NAME, f"{headwater.NAME}, no Redis")


class Live:
    """A live subscription, which stays from round to round."""

    def __init__(self, running: cluster.Cluster, store: headwater.Store, name: str, seconds: float) -> None:
        self._running = running
        self._store = store
        self._name = name
        self._seconds = seconds
        self._seen = 0

    async def round(self) -> Sample:
        """Append at the rate and gather what the handler noted."""
        appended, seconds = await steadily(self._seconds, lambda: self._store.append_called(time.monotonic()))
        note = await self._running.until_counted([self._name], self._seen + appended)
        latencies = read_latencies(self._running.folder, self._name)[self._seen :]
        counted, self._seen = note.events - self._seen, note.events
        return Sample(appended, counted, seconds, latencies)


async def steadily(seconds: float, append: Callable[[], Awaitable[None]]) -> tuple[int, float]:
    """Append at the rate, each on time whether the one before has ended or not; returns how many and how long."""
    begun = time.monotonic()
    number = int(seconds * RATE)
    async with asyncio.TaskGroup() as group:
        for turn in range(number):
            await asyncio.sleep(max(0.0, begun + turn / RATE - time.monotonic()))
            group.create_task(_call(append))
    return number, time.monotonic() - begun


async def _call(append: Callable[[], Awaitable[None]]) -> None:
    await append()


async def cases(bench: Bench) -> AsyncIterator[Case]:
    """Yield the case with Redis and then the one without: an idle cluster beside it is no part of either."""
    name, polling = NAMES
    async with bench.redis() as redis_url, _candidates(bench, name, redis_url) as candidates:
        yield Case(
            "live, 100 appends/s",
            candidates,
            {"appends_a_second": RATE},
            [
                Target(name, library.NAME, P50, at_most=1),
                Target(name, library.NAME, P99, at_most=1),
            ],
        )
    async with _candidates(bench, polling, None) as candidates:
        yield Case(
            "live, 100 appends/s, no Redis",
            candidates,
            {"appends_a_second": RATE},
            [Target(polling, figure=P99)],
        )


@asynccontextmanager
async def _candidates(bench: Bench, name: str, redis_url: str | None) -> AsyncIterator[Mapping[str, Candidate]]:
    """Run a cluster with a live subscription, and the library beside it."""
    seconds = 1.0 if bench.effort.quick else SECONDS
    async with bench.database() as url, library.recorder(bench) as recorder:
        await headwater.make_schema(url)
        async with (
            headwater.store(url, redis_url) as store,
            cluster.running(url, redis_url=redis_url) as running,
        ):
            subscription = running.name("live")
            await running.register([subscription], Latency, batch_size=100, start=CURRENT)
            await running.until_live([subscription])
            yield {
                name: Live(running, store, subscription, seconds).round,
                library.NAME: partial(recorder.live, seconds, RATE),
            }
