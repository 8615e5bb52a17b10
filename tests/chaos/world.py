"""Everything that a run of faults needs: servers, writers, the follower, the operators' interface.

``PlainWorld`` runs the subscriptions on plain hosts; the one on Ray is in ``rayworld``.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions
from headwater.cluster.status import PartitionStatus
from headwater.storage.errors import StoreUnavailable
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.schema import migrate
from tests.chaos import database, journal
from tests.chaos.checker import Checker
from tests.chaos.follower import Follower
from tests.chaos.hosts import Hosts
from tests.chaos.journal import Journal
from tests.chaos.processes import end, start_proxy
from tests.chaos.programs.app import app
from tests.chaos.servers import Servers
from tests.chaos.writers import Writers
from tests.plugins.proxies import through
from tests.plugins.waiting import until

T = TypeVar("T")

LIAR: Final = str(Path(__file__).parent / "programs" / "liar.py")
EXACT: Final = ("exact", "exact-sync")
LEASE: Final = 2.0
"""Seconds; the product's default is 3."""
STREAMS: Final = 64
SETTLED_LAG: Final = 5000
PATIENCE: Final = 180.0
"""How long anything may take before a run gives up, in seconds: far more than it should, on a busy machine."""


class NotSettled(Exception):
    """Something does not come back to order."""


class World(ABC):
    """One database and all that works on it."""

    kind: str

    def __init__(self, servers: Servers, name: str, seed: int) -> None:
        self.servers = servers
        self.random = random.Random(seed)
        self.folder = servers.folder / name
        self.url = ""
        self.checker = Checker(
            [each.name for each in app.registrations],
            [each.name for each in app.registrations if each.options.consumers],
        )
        self._name = name
        self._seed = seed
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _open(self) -> None:
        (self.folder / "journal").mkdir(parents=True)
        self.url = self.servers.database(self._name)
        await migrate(StoreOptions(url=self.url))
        with self.servers.connect(self.url) as conn:
            database.install(conn)
        lies = self.folder / "lies"
        self.liar, port = start_proxy(LIAR, str(self.servers.redis.port), str(self._seed), str(lies))
        self._stack.callback(end, self.liar)
        self.lies_file = lies
        self.redis_url = through(self.servers.redis.url, ("127.0.0.1", port))
        self.follower = Follower(Journal(self.folder / "journal"), self.checker)
        following = asyncio.create_task(self.follower.run(), name="follower")
        self._stack.push_async_callback(_cancelled, following)
        self.client = await self._stack.enter_async_context(await Client.open(self.options()))
        await self.client.register(app)
        self.writers = Writers({"HEADWATER_DATABASE_URL": self.url, "HEADWATER_REDIS_URL": self.redis_url}, self.folder)
        self._stack.callback(self.writers.close)
        await self._start()

    @abstractmethod
    async def _start(self) -> None:
        """Start what runs the subscriptions."""

    @property
    @abstractmethod
    def nodes(self) -> Collection[str]:
        """The nodes that should be alive."""

    @abstractmethod
    async def repair(self) -> None:
        """Start again what has ended."""

    def options(self) -> ClusterOptions:
        """Return the options of the deployment, with the direct way to the database."""
        store = StoreOptions(url=self.url, redis_url=self.redis_url, timeout=5)
        return ClusterOptions(store=store, lease=timedelta(seconds=LEASE))

    def environment(self) -> dict[str, str]:
        """Return what the processes that run subscriptions have in their environment, their database aside."""
        return {
            "HEADWATER_REDIS_URL": self.redis_url,
            "HEADWATER_LEASE": str(LEASE),
            "HEADWATER_TIMEOUT": "5",
            journal.FOLDER: str(self.folder / "journal"),
        }

    async def head(self) -> int:
        """Return the store's head."""
        return (await self.asked(self.client.status)).head

    async def asked(self, question: Callable[[], Awaitable[T]]) -> T:
        """Ask until the database answers. Raises AssertionError when it does not for too long."""

        async def answer() -> list[T]:
            try:
                return [await question()]
            except StoreUnavailable:
                return []

        [answered] = await until(answer, deadline=PATIENCE, what="waiting for the database to answer")
        return answered

    async def settled(self) -> list[PartitionStatus]:
        """Wait until every partition has an owner and a standby that live, and nearly everything is handled."""
        return await self._until_all(
            lambda p: {p.node, p.standby} <= set(self.nodes) and p.phase == "running" and p.lag < SETTLED_LAG
        )

    async def handled(self, head: int) -> None:
        """Wait until every subscription has handled everything up to a position. Raises NotSettled."""
        await self._until_all(lambda p: p.checkpoint >= head)

    async def _until_all(self, in_order: Callable[[PartitionStatus], bool]) -> list[PartitionStatus]:
        """Repair until every partition is in order; returns them. Raises NotSettled."""
        partitions: list[PartitionStatus] = []

        async def all_in_order() -> bool:
            nonlocal partitions
            await self.repair()
            partitions = await self.asked(self.client.partitions)
            return all(map(in_order, partitions))

        try:
            await until(all_in_order, PATIENCE)
        except AssertionError as error:
            raise NotSettled("; ".join(map(str, partitions))) from error
        return partitions

    async def finish(self) -> list[str]:
        """Let the writers end and everything be handled; returns what is wrong."""
        await asyncio.to_thread(self.writers.stop)
        written = self.writers.written()
        head = await self.head()
        await self.handled(head)
        await self.follower.look(everything=True)
        with self.servers.connect(self.url) as conn:
            found = await asyncio.to_thread(database.problems, conn, written, EXACT)
        if sum(written.values()) != head:
            found.append(f"{sum(written.values())} events are known to be written, and the head is {head}")
        return found

    async def stale_writes(self) -> list[tuple[str, str]]:
        """Return what former owners got through so far."""
        with contextlib.closing(await asyncio.to_thread(self.servers.connect, self.url)) as conn:
            return database.stale_writes(conn)


class PlainWorld(World):
    """The subscriptions run on plain hosts, without Ray."""

    kind = "hosts"

    def __init__(self, servers: Servers, name: str, seed: int, hosts: int = 3) -> None:
        super().__init__(servers, name, seed)
        self._number = hosts

    async def _start(self) -> None:
        self.hosts = Hosts(self.url, self._number, self.environment(), self.folder, self.servers.clocks)
        self._stack.callback(self.hosts.close)
        self.hosts.start_missing()

    @property
    def nodes(self) -> Collection[str]:
        return [node for node in self.hosts.nodes if not self.hosts[node].gone]

    async def repair(self) -> None:
        self.hosts.start_missing()


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
