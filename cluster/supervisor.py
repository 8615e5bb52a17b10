"""The supervisor: one host on each node, and each partition on a host, as the plan says.

Holds no truth: what is wanted and what is there is asked anew each time, so a supervisor that starts again, also in
another cluster on the same database, goes on where the last one stopped. Hosts run without it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from headwater.cluster.bell import Bell
from headwater.cluster.options import ClusterOptions
from headwater.cluster.plan import Assignment, HostFacts, PartitionFacts, plan
from headwater.storage.errors import StoreUnavailable
from headwater.storage.leases import News
from headwater.storage.outages import Outage

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """A node that is alive, as its cluster sees it."""

    node_id: str
    name: str
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


class Nodes(Protocol):
    """The nodes of one cluster, and the hosts on them."""

    async def alive(self) -> Sequence[NodeFacts]:
        """The nodes that are alive and may have a host."""
        ...

    async def has_host(self, node: NodeFacts) -> bool:
        """Whether a host process runs there."""
        ...

    async def start_host(self, node: NodeFacts) -> None:
        """Start one there; returns when the request is made."""
        ...


class Directory(Protocol):
    """The wanted state and the owners, in the database."""

    async def supervise(self) -> bool:
        """Be, or become, the one that writes the plan; False while another one is."""
        ...

    async def hosts(self) -> Sequence[HostFacts]:
        """The hosts that are alive: those that hold their own lock."""
        ...

    async def partitions(self) -> Sequence[PartitionFacts]:
        """The partitions that should run."""
        ...

    async def assign(self, assignments: Sequence[Assignment]) -> None:
        """Write assignments down; nothing is written when another supervisor has taken over."""
        ...

    async def repartition(self) -> Sequence[str]:
        """Put new sets of partitions in place where the old ones have been let go; returns of which subscriptions."""
        ...

    async def replace(self) -> None:
        """Make the steps that are due of new versions that take over from old ones."""
        ...

    async def tidy(self) -> None:
        """Take note of what is done or gone."""
        ...


class Backoff:
    """When to try again what has just failed: twice as late each time, at once after it has lasted a while."""

    def __init__(self, first: float = 0.2, most: float = 15.0) -> None:
        self._first = first
        self._most = most
        self._delay: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def due(self, key: str, now: float) -> bool:
        """Whether the time has come; if so, it counts as tried."""
        due = self._due.get(key, 0.0)
        if now < due:
            return False
        lasted = key in self._delay and now - due > 2 * self._most
        delay = self._first if lasted else min(self._most, 2 * self._delay.get(key, self._first / 2))
        self._delay[key] = delay
        self._due[key] = now + delay
        return True


class Supervisor:
    """Keeps a host on each node, and plans as long as it is the one that may."""

    def __init__(self, options: ClusterOptions, nodes: Nodes, directory: Directory) -> None:
        self._options = options
        self._nodes = nodes
        self._directory = directory
        self._backoff = Backoff()
        self._plans = Bell()
        self._patient_until = float("-inf")
        self._outage = Outage(log, "supervisor waits for the database", "supervisor goes on")

    def tell(self, news: News) -> None:
        """Look at once at what has changed, and not only when the interval is over."""
        if news is News.CONNECTED:
            self._patient_until = time.monotonic() + self._options.lease.total_seconds() / 3
        if news in (News.WANTED, News.READY, News.CONNECTED):
            self._plans.ring()

    async def run(self) -> None:
        """Go on until cancelled. Neither a database nor a cluster that does not answer ends it."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat("hosts", self.keep_hosts, Bell()), name="headwater-keep-hosts")
            tasks.create_task(
                self._repeat("partitions", self.keep_partitions, Bell()), name="headwater-keep-partitions"
            )
            tasks.create_task(self._repeat("plan", self.keep_plan, self._plans), name="headwater-keep-plan")

    async def keep_hosts(self) -> None:
        """Start a host on each node that has none."""
        for node in await self._nodes.alive():
            if not await self._nodes.has_host(node) and self._backoff.due(node.node_id, time.monotonic()):
                log.info("starting a host on node %s", node.name)
                await self._nodes.start_host(node)

    async def keep_partitions(self) -> None:
        """Give subscriptions the number of partitions that is wanted, once the old ones are let go."""
        if await self._directory.supervise():
            for name in await self._directory.repartition():
                log.info("%s has another number of partitions now", name)

    async def keep_plan(self) -> None:
        """Write down who should own what, where that has changed."""
        if not await self._directory.supervise():
            return
        hosts = await self._directory.hosts()
        partitions = await self._directory.partitions()
        # Asked once more: an outage may have come between, and it took the hosts' sessions along.
        if not await self._directory.supervise() or self._waits_for_hosts(hosts, partitions):
            return
        assignments = plan(partitions, hosts, self._options.max_moves)
        if assignments:
            log.info("assigning %d of %d partitions to %d hosts", len(assignments), len(partitions), len(hosts))
            await self._directory.assign(assignments)
        await self._directory.replace()
        await self._directory.tidy()

    def _waits_for_hosts(self, hosts: Sequence[HostFacts], partitions: Sequence[PartitionFacts]) -> bool:
        """Whether a host is missing that may have lost its session together with this supervisor, and comes back.

        Planned without it, it would have to let go of all that it has made ready. Nothing waits for the plan meanwhile:
        owners and standbys claim by themselves.
        """
        if time.monotonic() >= self._patient_until:
            return False
        known = {host for p in partitions for host in (p.wanted_owner, p.wanted_standby) if host is not None}
        return not known <= {host.host for host in hosts}

    async def _repeat(self, name: str, step: Callable[[], Awaitable[None]], bell: Bell) -> None:
        while True:
            try:
                await step()
                self._outage.ends(name)
            except StoreUnavailable as error:
                self._outage.goes_on(error, name)
            except Exception:
                log.exception("supervisor goes on after an error")
            await bell.pause(self._options.plan_interval.total_seconds())
