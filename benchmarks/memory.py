"""How much memory a process takes at most: measured in a process of its own, which has done nothing else."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.measure import Sample
from headwater.storage.postgres.store import PostgresEventStore

PEAK = "peak MiB"


async def peak_of_reading(url: str, events: int) -> Sample:
    """Let a new process read the whole store lazily; its peak is a figure of the sample."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        found, seconds, peak = await asyncio.wrap_future(processes.submit(_read, url))
    return Sample(events, found, seconds, facts={PEAK: peak})


def _read(url: str) -> tuple[int, float, float]:
    return asyncio.run(_read_everything(url))


async def _read_everything(url: str) -> tuple[int, float, float]:
    found = 0
    async with await PostgresEventStore.open(url) as store:
        begun = time.perf_counter()
        async for _ in store.stream_all():
            found += 1
        seconds = time.perf_counter() - begun
    return found, seconds, _peak() / 2**20


def _peak() -> float:
    """Return the most memory that this process has had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: on Linux that of a new process begins with its parent's peak.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
