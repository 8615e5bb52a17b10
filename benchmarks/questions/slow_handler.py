"""Does an owner's memory stay bounded while its handler is slower than the writers?

Writers append more than the handler can take, for ten minutes unless ``--seconds`` says otherwise; the owner is a
process of its own (``headwater run``), whose memory (PSS) is looked at twice a second. The bound is stated before: what
the process had when nothing was stored, and for each event that it may hold its payload, its record and the allocator's
share. Above the bound the run fails.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import orjson

from benchmarks import handlers, slow
from benchmarks.bench import Bench, Effort
from benchmarks.candidates import headwater
from benchmarks.candidates.cluster import Late
from benchmarks.measure import Case, Sample, Target
from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions
from headwater.cluster.status import PartitionStatus
from headwater.storage.model import NewEvent
from headwater.storage.options import StoreOptions
from headwater.subscriptions.options import SubscriptionOptions

SECONDS: Final = 600.0
PAYLOAD: Final = 2_000
"""Bytes of payload in each event."""
WRITERS: Final = 4
A_CALL: Final = 25
"""Events in one append of a writer."""
RATE: Final = 1_000
"""Events that are appended each second, twice what the handler can take."""
LOOK: Final = 0.5
PATIENCE: Final = 60.0

SHARED: Final = 10_000
"""How many of the newest events a process keeps for all its subscriptions together."""
RECORD: Final = 1_500
"""Bytes that an event takes beside its payload: its row, ids, times, names and its place in the window."""
ALLOCATOR: Final = 1.3
"""What is asked of the system for each byte in use: pages that are not full, and the driver's buffers."""

PEAK, BOUND, IDLE, LAG = "peak MiB", "bound MiB", "idle MiB", "events behind"
SHARE: Final = "peak of the bound"


class TooMuchMemory(AssertionError):
    """The owner has had more than was stated."""


def bound(idle: float) -> float:
    """Return what the owner may have at most, given what it has idle, in bytes."""
    options = SubscriptionOptions()
    events = SHARED + options.max_in_flight + 2 * options.read_size
    return idle + events * (PAYLOAD + RECORD) * ALLOCATOR


@dataclass
class Memory:
    """A process's memory, looked at again and again."""

    pid: int
    seen: list[float] = field(default_factory=list)

    def look(self) -> float:
        """Return how much the process has now, shared pages in proportion, in bytes."""
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        now = int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024.0
        self.seen.append(now)
        return now

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK)


async def slower_than_the_writers(bench: Bench, seconds: float) -> Sample:
    """Run the owner and the writers; returns what was handled, with the owner's peak."""
    async with bench.database() as url:
        await headwater.make_schema(url)
        with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
            # What is lost to a pause of the machine would be delivered again, and counted twice.
            environment = {
                **os.environ,
                "HEADWATER_DATABASE_URL": url,
                "HEADWATER_LEASE": "30",
                handlers.FOLDER: folder,
            }
            arguments = ("-m", "headwater", "run", f"{slow.__name__}:app", "--node", "slow", "--database-url", url)
            with (Path(folder) / "owner.log").open("wb") as log:
                owner = await asyncio.create_subprocess_exec(
                    sys.executable, *arguments, cwd=Path(__file__).parents[2], env=environment, stdout=log, stderr=log
                )
            try:
                async with (
                    await Client.open(ClusterOptions(store=StoreOptions(url=url))) as client,
                    headwater.store(url) as store,
                ):
                    await _until_owned(client)
                    memory = Memory(owner.pid)
                    idle = memory.look()
                    begun = time.monotonic()
                    watching = asyncio.create_task(memory.watch())
                    await _write(store, seconds)
                    behind = await _status(client)
                    watching.cancel()
                    elapsed = time.monotonic() - begun
                    owner.send_signal(signal.SIGTERM)
                    await owner.wait()
                    settled = (await _status(client)).checkpoint
            finally:
                if owner.returncode is None:
                    owner.kill()
                    await owner.wait()
            note = handlers.read_note(Path(folder), slow.NAME)
    most, allowed = max(memory.seen), bound(idle)
    if most > allowed:
        raise TooMuchMemory(f"{most / 2**20:.1f} MiB, of {allowed / 2**20:.1f} that were stated")
    facts = {
        IDLE: idle / 2**20,
        PEAK: most / 2**20,
        BOUND: allowed / 2**20,
        SHARE: most / allowed,
        LAG: float(behind.lag),
    }
    return Sample(settled, 0 if note is None else note.events, elapsed, facts=facts)


async def _write(store: headwater.Store, seconds: float) -> None:
    """Append at the rate, for so long."""
    data = orjson.Fragment(orjson.dumps({"note": "x" * (PAYLOAD - len('{"note":""}'))}))
    begun = time.monotonic()

    async def writer(number: int) -> None:
        interval, turn = A_CALL * WRITERS / RATE, 0
        while (now := time.monotonic()) - begun < seconds:
            await store.store.append(f"order-{number}-{turn // 40}", [NewEvent("Placed", data) for _ in range(A_CALL)])
            turn += 1
            await asyncio.sleep(max(0.0, begun + turn * interval - now))

    async with asyncio.TaskGroup() as group:
        for number in range(WRITERS):
            group.create_task(writer(number))


async def _status(client: Client) -> PartitionStatus:
    [found] = await client.partitions(slow.NAME)
    return found


async def _until_owned(client: Client) -> None:
    deadline = time.monotonic() + PATIENCE
    while not any(p.node is not None and p.phase == "running" for p in await client.partitions()):
        if time.monotonic() > deadline:
            raise Late("the owner does not come")
        await asyncio.sleep(0.05)


async def cases(bench: Bench) -> AsyncIterator[Case]:
    """Yield the one case."""
    if bench.effort.quick:
        seconds, rounds = 1.0, None
    else:
        seconds, rounds = (SECONDS if bench.effort.seconds == Effort().seconds else bench.effort.seconds), 1
    candidates = {headwater.NAME: partial(slower_than_the_writers, bench, seconds)}
    targets = [Target(headwater.NAME, figure=SHARE, at_most=1.0)]
    parameters = {"seconds": round(seconds), "payload": PAYLOAD, "appended a second": RATE}
    yield Case("slow handler", candidates, parameters, targets, rounds)
