"""How fast, and in how much memory, does the whole store get out, a page at a time?

Everybody reads pages of 1,000. Memory is that of a process of its own which reads everything: what it needs at most,
beyond what it had after its first page.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from benchmarks.bench import Bench
from benchmarks.candidates import headwater, library, limit
from benchmarks.fill import fill
from benchmarks.measure import Case, Target
from benchmarks.memory import peak_of_reading

PAGE = 1_000
EVENTS = (100_000, 400_000)


async def cases(bench: Bench) -> AsyncIterator[Case]:
    """Yield the speed at one size of the store, and the memory at two."""
    first, second = (2_000, 4_000) if bench.effort.quick else EVENTS
    async with bench.database() as url, library.recorder(bench) as recorder:
        await headwater.make_schema(url)
        fill(url, first)
        if bench.effort.wants("whole store"):
            recorder.fill(first // 100, 100)
            async with headwater.store(url) as store, limit.rows(url, 1) as rows:
                candidates = {
                    headwater.NAME: partial(store.read_everything, PAGE, first),
                    library.NAME: partial(recorder.read_everything, PAGE, first),
                    limit.SELECT: partial(rows.read_everything, PAGE, first),
                }
                targets = [Target(headwater.NAME, library.NAME), Target(headwater.NAME, limit.SELECT)]
                yield Case("whole store", candidates, {"events": first, "page": PAGE}, targets)
        if bench.effort.wants("memory"):
            async with bench.database() as larger:
                await headwater.make_schema(larger)
                fill(larger, second)
                names = [f"{headwater.NAME}, {number:,} events" for number in (first, second)]
                candidates = {
                    names[0]: partial(peak_of_reading, url, first),
                    names[1]: partial(peak_of_reading, larger, second),
                }
                yield Case("whole store, memory", candidates, {"page": PAGE}, [Target(names[1], names[0], "peak MiB")])
