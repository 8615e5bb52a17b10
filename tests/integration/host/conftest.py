"""Deployments of several processes without Ray, and what their handlers did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from headwater import NewEvent
from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions
from headwater.cluster.status import PartitionStatus
from headwater.storage.opening import connect
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.waiting import until

HERE = Path(__file__).parent
LEASE = 6.0
"""Seconds: so long that no process loses what it holds by being kept waiting, which would let events come again."""
SHORT_LEASE = 3.0
"""Seconds: for tests in which a lease is to run out."""


class Processes:
    """Processes that run the shop, by the names of their nodes."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *nodes: str, app: str = "shop:app", environment: Mapping[str, str] | None = None) -> None:
        for node in nodes:
            with (self._folder / f"{node}.log").open("ab") as log:
                self._running[node] = subprocess.Popen(
                    [sys.executable, "-m", "headwater", "run", app, "--node", node],
                    cwd=HERE,
                    env={**self._environment, **(environment or {})},
                    stdout=log,
                    stderr=log,
                )

    def signal(self, node: str, number: signal.Signals) -> None:
        self._running[node].send_signal(number)

    def kill(self, node: str) -> None:
        self.signal(node, signal.SIGKILL)
        self._running.pop(node).wait()

    def end(self, node: str) -> int:
        """Ask it to end, and return its exit status."""
        self.signal(node, signal.SIGTERM)
        return self._running.pop(node).wait(timeout=30)

    def start_bare(self, node: str) -> None:
        """Start one that runs whatever is registered, and cannot import the shop."""
        with (self._folder / f"{node}.log").open("ab") as log:
            self._running[node] = subprocess.Popen(
                [sys.executable, "-m", "headwater", "run", "--node", node],
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    def log(self, node: str) -> str:
        return (self._folder / f"{node}.log").read_text()

    def close(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()


class Shop:
    """A store, the processes that run its subscriptions, and what was handled."""

    def __init__(self, url: str, processes: Processes, client: Client, store: PostgresEventStore) -> None:
        self.url = url
        self.processes = processes
        self.client = client
        self.store = store

    async def append(self, events: int, stream: str = "order-1") -> None:
        await self.store.append(stream, [NewEvent("Placed", {"n": n}) for n in range(events)])

    async def owners(self) -> dict[tuple[str, int], str | None]:
        return {(p.subscription, p.partition): p.node for p in await self.client.partitions()}

    async def settled(self, *nodes: str) -> dict[tuple[str, int], str | None]:
        """Wait until the partitions are shared among these nodes, with standbys; returns the owners."""

        async def shared_out() -> bool:
            partitions = await self.client.partitions()
            owns = Counter(p.node for p in partitions)
            counts = [owns[node] for node in nodes]
            complete = sum(counts) == len(partitions) > 0 and max(counts) - min(counts) <= 1
            return complete and (len(nodes) == 1 or all(p.standby in nodes for p in partitions))

        await until(shared_out, what=f"waiting until {', '.join(nodes)} share the partitions")
        return await self.owners()

    async def caught_up(self, meanwhile: Callable[[], None] = lambda: None) -> list[PartitionStatus]:
        async def at_the_head() -> bool:
            meanwhile()
            head = await self.store.head()
            return all(p.checkpoint >= head for p in await self.client.partitions())

        await until(at_the_head, what="waiting until every subscription is at the head")
        return await self.client.partitions()

    def handled(self, subscription: str) -> list[int]:
        """Return the positions that were handled, as often as they were, in order."""
        with psycopg.connect(self.url) as conn:
            query = 'SELECT "position" FROM "handled" WHERE "subscription" = %s ORDER BY "position"'
            return [position for (position,) in conn.execute(query, [subscription]).fetchall()]


@pytest.fixture
def processes(database_url: str, tmp_path: Path) -> Iterator[Processes]:
    environment = {**os.environ, "HEADWATER_DATABASE_URL": database_url, "HEADWATER_LEASE": str(LEASE)}
    running = Processes(environment, tmp_path)
    yield running
    running.close()


@pytest.fixture
async def shop(database_url: str, processes: Processes) -> AsyncIterator[Shop]:
    with psycopg.connect(database_url) as conn:
        conn.execute('CREATE TABLE "handled" ("subscription" text, "position" bigint)')
    options = ClusterOptions(store=StoreOptions(url=database_url))
    async with connect(database_url) as store, await Client.open(options) as client:
        yield Shop(database_url, processes, client, store)
