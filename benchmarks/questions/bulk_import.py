"""How fast does a large history get in, beside one COPY of the same rows?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Final

from benchmarks.bench import Bench
from benchmarks.candidates import headwater, limit
from benchmarks.measure import Case, Target

EVENTS: Final = 1_000_000


async def cases(bench: Bench) -> AsyncIterator[Case]:
    """Yield the one case. Each round adds a million rows to each table."""
    events = 10_000 if bench.effort.quick else EVENTS
    async with headwater.empty_store(bench) as store, limit.table(bench) as table:
        candidates = {
            headwater.NAME: partial(store.import_events, events),
            limit.COPY: partial(table.copy_at_once, events),
            limit.COPY_BYTES: partial(table.copy_bytes, events),
        }
        targets = [
            Target(headwater.NAME, limit.COPY, at_least=0.85),
            Target(headwater.NAME, limit.COPY_BYTES),
        ]
        yield Case(f"import of {events:,}", candidates, {"events": events}, targets)
