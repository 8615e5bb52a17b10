"""What do an append and a read cost as the store grows?

Every size is a database of its own on the same server, beside one that is as good as empty, and each round visits all
of them: what disturbs the machine disturbs all. Indexes are in memory, and so are the streams that are read, but for
the case that reads any stream. The sizes are an option, and filled stores can be kept: 50 million events take minutes,
and some 25 GB of disk.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from benchmarks.bench import Bench
from benchmarks.candidates import headwater
from benchmarks.fill import stream_name, warm
from benchmarks.kept import BETWEEN
from benchmarks.measure import P50, Case, Target
from benchmarks.payload import STREAM_LENGTH

EMPTY: Final = 1_000
"""As good as none, and enough to read."""
STREAMS: Final = 100
"""So many streams of each store are read again and again, chosen at random."""
ANY_STREAMS: Final = 20_000
"""So many are chosen at random where hardly one is read twice."""
SEED: Final = 1


async def cases(bench: Bench) -> AsyncIterator[Case]:
    """Yield appends of one and of a hundred events, and reads of a hundred, over all sizes."""
    effort = bench.effort
    async with AsyncExitStack() as stack:
        stores: dict[int, headwater.Store] = {}
        streams: dict[int, list[str]] = {}
        any_streams: dict[int, list[str]] = {}
        for size in sorted({EMPTY, *effort.sizes}):
            url = await stack.enter_async_context(bench.filled(size, BETWEEN))
            warm(url)
            streams[size] = _chosen(size, STREAMS)
            any_streams[size] = _chosen(size, ANY_STREAMS)
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
        # What is not in memory is a matter of the disk: shown, and promised by nobody.
        shown = [Target(labels[size], labels[EMPTY], P50) for size in effort.sizes]
        reads = {
            labels[size]: partial(store.read, any_streams[size], 100, 1, effort.seconds)
            for size, store in stores.items()
        }
        yield Case("growth, read 1x100, any stream", reads, {"readers": 1, "events": 100}, shown)


def _chosen(size: int, number: int) -> list[str]:
    return [stream_name(n) for n in random.Random(SEED).choices(range(size // STREAM_LENGTH), k=number)]
