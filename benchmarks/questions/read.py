"""How fast does one stream get out, for how many readers at once?

The seed's own cases are 1, 10, 20 and 50 readers of 100 events. Nobody decodes the payloads. In a case of its own
somebody looks at each event, because what is read may leave work to whoever looks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from benchmarks.bench import Bench
from benchmarks.candidates import headwater, library, limit
from benchmarks.fill import fill
from benchmarks.measure import Case, Target

READERS = (1, 10, 20, 50)
LENGTHS = (100, 1_000)
EVENTS = 100_000


async def cases(bench: Bench) -> AsyncIterator[Case]:
    """Yield each length of a stream with each number of readers."""
    effort = bench.effort
    events = 1_000 if effort.quick else EVENTS
    for length in LENGTHS[: 1 if effort.quick else None]:
        wanted = [readers for readers in READERS[: 2 if effort.quick else None] if effort.wants(_name(readers, length))]
        looked = f"{_name(1, length)}, looked at"
        if not wanted and not effort.wants(looked):
            continue
        async with bench.database() as url, library.recorder(bench) as recorder:
            await headwater.make_schema(url)
            streams = fill(url, events, length=length)
            theirs = recorder.fill(events // length, length)
            for readers in wanted:
                async with headwater.store(url) as store, limit.rows(url, min(readers, 10)) as rows:
                    where = (length, readers, effort.seconds)
                    candidates = {
                        headwater.NAME: partial(store.read, streams, *where),
                        library.NAME: partial(recorder.read, theirs, *where),
                        limit.SELECT: partial(rows.read, streams, *where),
                    }
                    targets = [
                        Target(headwater.NAME, library.NAME, at_least=2.4 if length == 1000 and readers == 1 else None),
                        Target(headwater.NAME, limit.SELECT, at_least=0.6 if length == 1000 and readers == 1 else None),
                    ]
                    parameters = {"readers": readers, "events": length}
                    yield Case(_name(readers, length), candidates, parameters, targets)
            if effort.wants(looked):
                async with headwater.store(url) as store:
                    where = (length, 1, effort.seconds)
                    candidates = {
                        headwater.NAME: partial(store.read, streams, *where, look=True),
                        library.NAME: partial(recorder.read, theirs, *where, look=True),
                    }
                    targets = [Target(headwater.NAME, library.NAME)]
                    yield Case(looked, candidates, {"readers": 1, "events": length}, targets)


def _name(readers: int, length: int) -> str:
    return f"read {readers}x{length}"
