"""The subscriptions on Ray nodes of this machine, and the processes behind them, found by what the system says."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final

from headwater.cluster.local import LocalCluster
from headwater.cluster.options import ClusterOptions
from tests.chaos.processes import ROOT, gone
from tests.chaos.servers import Servers
from tests.chaos.world import World
from tests.plugins.processes import Process, descendants

HOST: Final = "ray::_HostActor"
HANDLER: Final = "ray::_HandlerActor"
RAYLET: Final = "/raylet --raylet_socket_name="
NAME: Final = "--node-name="
HEAD: Final = "__internal_head__"
GCS: Final = "/gcs_server "


def raylets_of_nodes(processes: Iterable[Process]) -> dict[int, str]:
    """Return which of these are raylets of nodes, and the names of the nodes: two clusters may have the same ones.

    A worker that a raylet has just begun to start is none, although it still has the raylet's command line.
    """
    raylets = {process.pid: process for process in processes if RAYLET in process.command}
    return {
        process.pid: process.command.partition(NAME)[2].split()[0]
        for process in raylets.values()
        if HEAD not in process.command and process.parent not in raylets
    }


class RayWorld(World):
    """A head that hosts nothing, and so many nodes."""

    kind = "Ray"

    def __init__(self, servers: Servers, name: str, seed: int, nodes: int = 3) -> None:
        super().__init__(servers, name, seed)
        self._number = nodes
        self._raylets: dict[str, int] = {}
        self._before: dict[str, str | None] = {}

    async def _start(self) -> None:
        self._before = {name: os.environ.get(name) for name in self.environment()}
        os.environ.update(self.environment())  # Ray's processes have it from this one
        self._stack.callback(self._forget_environment)
        self._stack.push_async_callback(self._end)
        await self.new_cluster()

    async def new_cluster(self) -> None:
        """Start a cluster, let it run the subscriptions; the one before it, if there is one, ends afterwards."""
        old, before = getattr(self, "cluster", None), self._all_raylets()
        self.cluster = await LocalCluster(self._number).__aenter__()
        # By what they say: process numbers begin anew now and then, and are in no order.
        self._raylets = {name: pid for pid, name in self._all_raylets().items() if pid not in before}
        assert set(self._raylets) == set(self.cluster.nodes)
        await self.cluster.deploy(None, self.options())
        if old is not None:
            await old.__aexit__(None, None, None)

    async def _end(self) -> None:
        if hasattr(self, "cluster"):
            await self.cluster.__aexit__(None, None, None)

    def options(self) -> ClusterOptions:
        """Return the options, with the folder from which Ray's processes import the app."""
        return replace(super().options(), import_from=(str(ROOT),))

    @property
    def nodes(self) -> Collection[str]:
        """The nodes whose raylet runs."""
        return [node for node, raylet in self._raylets.items() if not gone(raylet)]

    async def repair(self) -> None:
        """Replace each node whose raylet has ended."""
        for node in [node for node in self._raylets if node not in self.nodes]:
            await self.cluster.kill_node(node)
            del self._raylets[node]
            before = self._all_raylets()
            added = await self.cluster.add_node()
            (self._raylets[added],) = set(self._all_raylets()) - set(before)

    def raylet(self, node: str) -> int:
        """Return the process of a node that is the parent of all its workers."""
        return self._raylets[node]

    def actors(self, node: str, title: str) -> list[int]:
        """Return the processes of a node's actors of one kind."""
        return [process.pid for process in descendants(self.raylet(node)) if process.command.startswith(title)]

    def _all_raylets(self) -> dict[int, str]:
        return raylets_of_nodes(self._processes())

    def head_processes(self) -> list[int]:
        """Return the processes of the head: its raylet, and then its GCS, which would be started again beside it."""
        below = self._processes()
        return [p.pid for p in below if RAYLET in p.command and HEAD in p.command] + [
            p.pid for p in below if GCS in p.command
        ]

    def gcs(self) -> list[int]:
        """Return the process of the head's GCS, if one runs."""
        return [p.pid for p in self._processes() if GCS in p.command]

    def _processes(self) -> list[Process]:
        return [p for p in descendants(os.getpid()) if not gone(p.pid)]

    def _forget_environment(self) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
