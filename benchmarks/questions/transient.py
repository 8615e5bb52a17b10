"""How fast do transient subscriptions get what is appended, for how many of them at once?

The seed's own cases are 1, 10, 20 and 50 subscriptions of 100 events. One append, then everybody has it: that again and
again. Everybody is in the appending process; the library's subscriptions are threads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Final

from benchmarks.bench import Bench
from benchmarks.candidates import headwater, library
from benchmarks.measure import Case, Target

SUBSCRIPTIONS: Final = (1, 10, 20, 50)
BATCHES: Final = (1, 10, 100, 1_000, 10_000)
MOST: Final = 100_000
"""So many deliveries of one append are enough."""


async def cases(bench: Bench) -> AsyncIterator[Case]:
    """Yield each number of subscriptions with each size of an append."""
    effort = bench.effort
    for batch in (100,) if effort.quick else BATCHES:
        for number in (10,) if effort.quick else SUBSCRIPTIONS:
            name = f"transient {number}x{batch}"
            if number * batch > MOST or not effort.wants(name):
                continue
            async with (
                headwater.empty_store(bench) as store,
                library.recorder(bench, library.POOL_SIZE + number) as recorder,
            ):
                candidates = {
                    headwater.NAME: partial(store.follow, number, batch, effort.seconds),
                    library.NAME: partial(recorder.follow, number, batch, effort.seconds),
                }
                targets = [Target(headwater.NAME, library.NAME)]
                yield Case(name, candidates, {"subscriptions": number, "batch": batch}, targets)
