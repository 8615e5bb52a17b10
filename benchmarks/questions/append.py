"""How fast do events get in, by how many writers, in how large calls?

The seed's own cases are 1, 10, 20 and 50 writers of 100 events. Every call is durable when it returns. INSERT is what
one caller could do at most, who makes the same rows and sends them as one statement: no check, no order, nothing else
written; "without indexes" is the same into a table that has none. "Ready batches" are what the store sends for 50
writers of one event, made before the clock starts and sent by as many connections as it uses: the server's share of
that case. "Callers alone" is the callers' own share: their events go nowhere.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from benchmarks.bench import Bench
from benchmarks.candidates import headwater, library, limit
from benchmarks.measure import P99, Candidate, Case, Target

WRITERS: Final = (1, 10, 20, 50)
BATCHES: Final = (1, 10, 100, 1_000, 10_000)
TOO_MUCH_FOR_THE_LIBRARY: Final = 100_000
"""So many events at once keep it busy for several seconds, and all its callers waiting."""

WANTED: Final = {
    (1, 1): [Target(headwater.NAME, library.NAME, at_least=1.2)],
    (1, 100): [Target(headwater.NAME, library.NAME, at_least=3)],
    (50, 1): [Target(headwater.NAME, library.NAME, at_least=12), Target(headwater.NAME, figure=P99, at_most=15)],
    (50, 100): [Target(headwater.NAME, limit.COPY, at_least=0.7)],
}
SHOWN: Final = (
    Target(headwater.NAME, library.NAME),
    Target(headwater.NAME, library.ORDERED),
    Target(headwater.NAME, limit.COPY),
    Target(headwater.NAME, limit.INSERT),
    Target(limit.INSERT, library.NAME),
    Target(limit.INSERT_BARE, library.NAME),
    Target(headwater.NAME, headwater.READY),
    Target(headwater.READY, library.NAME),
    Target(headwater.NAME, headwater.CALLERS),
    Target(headwater.CALLERS, library.NAME),
)


async def cases(bench: Bench) -> AsyncIterator[Case]:
    """Yield each number of writers with each size of a call."""
    effort = bench.effort
    every = itertools.product(BATCHES, WRITERS)
    for batch, writers in ((1, 1), (100, 10)) if effort.quick else every:
        name = f"append {writers}x{batch}"
        if not effort.wants(name):
            continue
        async with AsyncExitStack() as stack:
            candidates: dict[str, Candidate] = {}
            store = await stack.enter_async_context(headwater.empty_store(bench))
            candidates[headwater.NAME] = partial(store.append, writers, batch, effort.seconds)
            if writers * batch < TOO_MUCH_FOR_THE_LIBRARY:
                recorder = await stack.enter_async_context(library.recorder(bench))
                candidates[library.NAME] = partial(recorder.append, writers, batch, effort.seconds)
            if (writers, batch) in WANTED:
                ordered = await stack.enter_async_context(library.recorder(bench, ordered=True))
                candidates[library.ORDERED] = partial(ordered.append, writers, batch, effort.seconds)
            table = await stack.enter_async_context(limit.table(bench))
            candidates[limit.COPY] = partial(table.fill, effort.seconds)
            if writers == 1:
                candidates[limit.INSERT] = partial(table.insert, batch, effort.seconds)
                bare = await stack.enter_async_context(limit.table(bench, indexes=False))
                candidates[limit.INSERT_BARE] = partial(bare.insert, batch, effort.seconds)
            if (writers, batch) == (50, 1):
                candidates[headwater.READY] = partial(store.append_ready, writers)
                candidates[headwater.CALLERS] = partial(store.call_nobody, writers, batch, effort.seconds)
            yield Case(name, candidates, {"writers": writers, "batch": batch}, _targets(writers, batch, candidates))


def _targets(writers: int, batch: int, candidates: dict[str, Candidate]) -> list[Target]:
    wanted = WANTED.get((writers, batch), [])
    ratios = {(target.of, target.to) for target in wanted}
    shown = [target for target in SHOWN if target.of in candidates and target.to in candidates]
    return wanted + [target for target in shown if (target.of, target.to) not in ratios]
