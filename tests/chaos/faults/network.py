"""Faults of the network between Ray nodes, each of which has a namespace of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar
from urllib.parse import urlsplit

from headwater.cluster.status import PartitionStatus
from tests.chaos.faults.base import Fault
from tests.chaos.network import PEERS, SERVERS
from tests.chaos.networld import NetworkWorld, wait_for_end
from tests.chaos.world import LEASE

DEAD_AFTER = 4.5
"""When Ray's head takes a node for dead that does not answer, in seconds."""
ENDS_WITHIN = 20.0
"""How long a node that was taken for dead may take to learn it and to end, in seconds."""


class CutNode(Fault[NetworkWorld]):
    name = "node cut off"
    what = "a node's cables are out, to the database and to the other nodes; plugged in when others have taken over"
    target: ClassVar[float | None] = LEASE + 1
    moves = True
    networks: Sequence[str] = (PEERS, SERVERS)
    node: str

    def aim(self, partitions: Sequence[PartitionStatus]) -> Sequence[PartitionStatus]:
        """Choose the owner of some partition."""
        node = self.chance.choice(partitions).node
        assert node is not None
        self.node = node
        return [p for p in partitions if p.node == node]

    async def inject(self) -> None:
        self.number = self.world.number(self.node)
        for network in self.networks:
            self.world.network.unplug(network, self.number)

    async def took_effect(self) -> bool:
        """The head cannot be reached from there."""
        return not await self._reaches(PEERS, self.world.port)

    async def _reaches(self, network: str, port: int) -> bool:
        here = self.world.network.address(network, 0)
        return await asyncio.to_thread(self.world.network.reaches, self.number, here, port)

    async def heal(self) -> None:
        for network in self.networks:
            self.world.network.plug(network, self.number)


class CutNodeFromRay(CutNode):
    name = "node cut from Ray"
    what = "a node reaches the database and no other node: it goes on, until Ray takes it for dead and ends it"
    target = None
    moves = False
    networks = (PEERS,)
    rarely = 2
    hold = (DEAD_AFTER + 1, DEAD_AFTER + 2)

    async def heal(self) -> None:
        await super().heal()
        await wait_for_end(self.world, self.node, ENDS_WITHIN)


class CutNodeFromServers(CutNode):
    name = "node cut from Postgres"
    what = "the cable to the servers alone is out, so neither Postgres nor Redis is reached, and Ray is"
    networks = (SERVERS,)

    async def took_effect(self) -> bool:
        """Postgres cannot be reached from there, and the head can."""
        port = urlsplit(self.world.url).port
        assert port is not None
        return not await self._reaches(SERVERS, port) and await self._reaches(PEERS, self.world.port)


NETWORK = (CutNode, CutNodeFromRay, CutNodeFromServers)
