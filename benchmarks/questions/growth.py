"""What do an append and a read cost as the store grows?

Every size is a database of its own on the same server, and each round visits all of them. The sizes are an option:
filling 50 million events takes minutes, and some 25 GB of disk.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from benchmarks.bench import Bench
from benchmarks.candidates import headwater
from benchmarks.fill import fill
from benchmarks.measure import P50, Case, Target

EMPTY: Final = 1_000
"""As good as none, and enough to read."""
STREAMS: Final = 1_000
"""So many streams of each store are read, chosen at random."""
SEED: Final = 1


async def cases(bench: Bench) -> AsyncIterator[Case]:
    """Yield appends of one and of a hundred events, and reads of a hundred, over all sizes."""
    effort = bench.effort
    async with AsyncExitStack() as stack:
        stores: dict[int, headwater.Store] = {}
        streams: dict[int, list[str]] = {}
        for size in (EMPTY, *effort.sizes):
            url = await stack.enter_async_context(bench.database())
            await headwater.make_schema(url)
            names = await asyncio.to_thread(fill, url, size)
            streams[size] = random.Random(SEED).choices(names, k=STREAMS)
            stores[size] = await stack.enter_async_context(headwater.store(url))
        labels = {size: f"{size:,} events" for size in stores}
        targets = [Target(labels[size], labels[EMPTY], P50, at_most=1.2) for size in effort.sizes]
        for batch in (1, 100):
            appends = {labels[size]: partial(store.append, 1, batch, effort.seconds) for size, store in stores.items()}
            yield Case(f"growth, append 1x{batch}", appends, {"writers": 1, "batch": batch}, targets)
        reads = {
            labels[size]: partial(store.read, streams[size], 100, 1, effort.seconds) for size, store in stores.items()
        }
        yield Case("growth, read 1x100", reads, {"readers": 1, "events": 100}, targets)
