"""How long after a fault is the next event handled?

Events keep coming, 100 a second. Counted from the fault until an event enters the handler on another node.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Final

from benchmarks.bench import Bench
from benchmarks.candidates import cluster, headwater
from benchmarks.handlers import Count, Note, read_notes
from benchmarks.measure import Case, Sample, Target
from headwater.cluster.status import PartitionStatus
from headwater.subscriptions.options import CURRENT

TAKEOVER: Final = "takeover ms"
REDELIVERED: Final = "redelivered"
PAUSE: Final = 0.01


class Broken:
    """A subscription on two nodes that loses its owner again and again."""

    def __init__(self, running: cluster.Cluster, store: headwater.Store, name: str) -> None:
        self._running = running
        self._store = store
        self._name = name

    async def kill_owner(self) -> Sample:
        """Kill the process that runs the handler."""

        async def kill(_owner: PartitionStatus) -> None:
            os.kill(self._pid(), signal.SIGKILL)

        return await self._measure(kill)

    async def kill_node(self) -> Sample:
        """Kill every process of the node that owns it; another node comes afterwards."""

        async def kill(owner: PartitionStatus) -> None:
            assert owner.node is not None
            await self._running.local.kill_node(owner.node)

        sample = await self._measure(kill)
        await self._running.local.add_node()
        return sample

    async def hand_over(self) -> Sample:
        """Ask for a move to the node that stands by."""

        async def move(owner: PartitionStatus) -> None:
            assert owner.standby is not None
            await self._running.client.move(self._name, owner.standby)

        return await self._measure(move)

    async def _measure(self, fault: Callable[[PartitionStatus], Awaitable[None]]) -> Sample:
        appending = asyncio.create_task(self._append())
        try:
            owner = await self._until_ready()
            old = self._newest()[0]
            begun = time.monotonic()
            await fault(owner)
            while (newest := self._newest())[0] == old:
                if time.monotonic() - begun > cluster.PATIENCE:
                    raise cluster.Late(f"nobody takes over {self._name}")
                await asyncio.sleep(PAUSE / 10)
        finally:
            appending.cancel()
            await asyncio.wait([appending])
        [after] = await self._running.client.partitions(self._name)
        facts = {
            TAKEOVER: (newest[1].first - begun) * 1000,
            REDELIVERED: float(after.redelivered - owner.redelivered),
        }
        return Sample(0, 0, newest[1].first - begun, facts=facts)

    async def _append(self) -> None:
        while True:
            await self._store.append_new(1)
            await asyncio.sleep(PAUSE)

    async def _until_ready(self) -> PartitionStatus:
        """Wait until it moves, and somebody stands by on another node."""
        begun = time.monotonic()
        while True:
            count = sum(note.events for note in self._notes().values())
            await asyncio.sleep(PAUSE * 10)
            [found] = await self._running.client.partitions(self._name)
            moves = sum(note.events for note in self._notes().values()) > count
            if moves and found.node and found.standby and found.standby != found.node:
                return found
            if time.monotonic() - begun > cluster.PATIENCE:
                raise cluster.Late(f"{found} does not run with a standby")

    def _notes(self) -> dict[int, Note]:
        return read_notes(self._running.folder, self._name)

    def _newest(self) -> tuple[int, Note]:
        """Return the process that began last, and what it noted."""
        return max(self._notes().items(), key=lambda item: item[1].first)

    def _pid(self) -> int:
        return self._newest()[0]


async def cases(bench: Bench) -> AsyncIterator[Case]:
    """Yield each fault."""
    async with bench.database() as url, bench.redis() as redis_url:
        await headwater.make_schema(url)
        async with (
            headwater.store(url, redis_url) as store,
            cluster.running(url, nodes=2, redis_url=redis_url) as running,
        ):
            faults = (
                ("takeover, planned hand-over", Broken.hand_over, 250),
                ("takeover, owner killed", Broken.kill_owner, 1_000),
                ("takeover, node killed", Broken.kill_node, 2_000),
            )
            for case, fault, most in faults:
                if not bench.effort.wants(case):
                    continue
                name = running.name("takeover")
                await running.register([name], Count, batch_size=100, start=CURRENT)
                broken = Broken(running, store, name)
                targets = [
                    Target(headwater.NAME, figure=TAKEOVER, at_most=most),
                    Target(headwater.NAME, figure=REDELIVERED),
                ]
                yield Case(case, {headwater.NAME: partial(fault, broken)}, {}, targets)
                await running.stop([name])
