"""Does one partitioned subscription handle more when more nodes share it?

A handler that needs the processor: half a millisecond of Python for each event, so that it and not the reading is what
takes time. With as many partitions as nodes each node owns one; each owner reads everything and keeps its share.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

from benchmarks.bench import Bench
from benchmarks.candidates import cluster, headwater
from benchmarks.fill import fill
from benchmarks.handlers import Work
from benchmarks.measure import Case, Target

EVENTS: Final = 6_000
BATCH: Final = 50
NODES: Final = 3


async def cases(bench: Bench) -> AsyncIterator[Case]:
    """Yield one case: the same subscription over 1, 2 and 3 nodes."""
    events = 1_000 if bench.effort.quick else EVENTS
    async with bench.database() as url:
        await headwater.make_schema(url)
        await asyncio.to_thread(fill, url, events)
        async with cluster.running(url, nodes=NODES) as running:
            over = {
                f"over {nodes}": partial(running.catch_up, Work, events, batch_size=BATCH, partitions=nodes)
                for nodes in range(1, NODES + 1)
            }
            targets = [Target("over 2", "over 1"), Target("over 3", "over 1")]
            yield Case("partitions, busy handler", over, {"events": events, "batch": BATCH}, targets)
