"""Load: many callers at once for a given time, as tasks or as threads, with the time that each call took."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Load:
    """What some callers did."""

    calls: int
    seconds: float
    latencies: list[float]


async def tasks(callers: int, seconds: float, call: Callable[[int], Awaitable[None]]) -> Load:
    """Let so many tasks call one after another until the time is over; a call that has begun is finished."""
    latencies: list[float] = []
    begun = time.perf_counter()

    async def caller(number: int) -> None:
        now = time.perf_counter()
        while now - begun < seconds:
            await call(number)
            now, before = time.perf_counter(), now
            latencies.append(now - before)

    async with asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(caller(number))
    return Load(len(latencies), time.perf_counter() - begun, latencies)


async def threads(callers: int, seconds: float, call: Callable[[int], None]) -> Load:
    """The same with so many threads."""
    return await asyncio.to_thread(_threads, callers, seconds, call)


def _threads(callers: int, seconds: float, call: Callable[[int], None]) -> Load:
    begun = time.perf_counter()

    def caller(number: int) -> list[float]:
        latencies = []
        now = time.perf_counter()
        while now - begun < seconds:
            call(number)
            now, before = time.perf_counter(), now
            latencies.append(now - before)
        return latencies

    with ThreadPoolExecutor(callers) as pool:
        latencies = [latency for each in pool.map(caller, range(callers)) for latency in each]
    return Load(len(latencies), time.perf_counter() - begun, latencies)


def turn(items: Sequence[Item], first: int) -> Iterator[Item]:
    """Go round and round the items, from another one for each caller."""
    start = first % len(items)
    return itertools.cycle([*items[start:], *items[:start]])
