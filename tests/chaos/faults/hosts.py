"""Faults of plain hosts: killed, frozen, cut off from the database, ended in good order, moved away from."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from headwater.cluster.status import PartitionStatus
from tests.chaos.faults.base import Fault
from tests.chaos.hosts import Host
from tests.chaos.processes import frozen
from tests.chaos.world import LEASE, PATIENCE, PlainWorld
from tests.plugins.waiting import until


class OwnerFault(Fault[PlainWorld]):
    """Something happens to a host that owns partitions."""

    moves = True
    host: Host

    def aim(self, partitions: Sequence[PartitionStatus]) -> Sequence[PartitionStatus]:
        """Choose the owner of some partition."""
        node = self.chance.choice(partitions).node
        assert node is not None
        self.host = self.world.hosts[node]
        return [p for p in partitions if p.node == node]


class KillHost(OwnerFault):
    name = "host killed"
    what = "SIGKILL to the process that owns partitions"
    target = 1.0

    async def inject(self) -> None:
        self.host.signal(signal.SIGKILL)

    async def took_effect(self) -> bool:
        return self.host.gone


class FreezeHost(OwnerFault):
    name = "host frozen"
    what = "SIGSTOP to the process that owns partitions; SIGCONT when another one has taken over"
    target = LEASE + 1

    async def inject(self) -> None:
        self.host.signal(signal.SIGSTOP)

    async def took_effect(self) -> bool:
        return frozen(self.host.pid)

    def frozen(self) -> Sequence[int]:
        """Return the host: its handlers run there."""
        return [self.host.pid]

    async def heal(self) -> None:
        self.host.signal(signal.SIGCONT)


class CutHost(OwnerFault):
    name = "host cut from Postgres"
    what = "nothing passes between an owner and the database, nobody is told; what was sent arrives after the repair"
    target = LEASE + 1

    async def inject(self) -> None:
        self.host.cable.cut()

    async def took_effect(self) -> bool:
        """A connection is accepted, and nobody answers on it."""
        return frozen(self.host.cable.process.pid) and not await asyncio.to_thread(_answers, self.host.cable.url)

    async def heal(self) -> None:
        self.host.cable.mend()


def _answers(url: str) -> bool:
    """Whether anybody says anything to the first message of the protocol, the question for TLS."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as conn:
        conn.settimeout(0.1)
        conn.sendall(bytes([0, 0, 0, 8, 4, 210, 22, 47]))
        try:
            return bool(conn.recv(1))
        except TimeoutError:
            return False


class KillLeaseSession(OwnerFault):
    name = "lease session killed"
    what = "the server ends the one session that holds an owner's locks"
    ends_sessions = True

    async def inject(self) -> None:
        # An owner that has just lost it for another reason has none for a moment.
        await until(lambda: asyncio.to_thread(self._terminate), deadline=PATIENCE, what="waiting for a lease session")

    async def took_effect(self) -> bool:
        return await asyncio.to_thread(self._left) == 0

    def _terminate(self) -> int:
        with self.world.servers.connect(self.world.url) as conn:
            rows = conn.execute(
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s",
                [f"%leases of {self.host.node}-%"],
            ).fetchall()
        self._pids = [pid for pid, _ in rows]
        return len(rows)

    def _left(self) -> int:
        with self.world.servers.connect(self.world.url) as conn:
            row = conn.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (%s)", [self._pids]).fetchone()
        assert row is not None
        return int(row[0])


class EndHost(OwnerFault):
    name = "host ended by SIGTERM"
    what = "planned: the process hands everything over, and ends with status 0"
    planned = True

    async def inject(self) -> None:
        self.host.signal(signal.SIGTERM)

    async def took_effect(self) -> bool:
        return self.host.process.poll() == 0


class HandOver(Fault[PlainWorld]):
    name = "planned hand-over"
    what = "an operator moves one partition to the node that stands by"
    planned = True
    target = 0.25
    moves = True

    def aim(self, partitions: Sequence[PartitionStatus]) -> Sequence[PartitionStatus]:
        """Choose any partition."""
        self.partition = self.chance.choice(partitions)
        return [self.partition]

    async def inject(self) -> None:
        moved, self.begun = self.partition, time.monotonic()
        assert moved.standby is not None
        await self.world.client.move(moved.subscription, moved.standby, partition=moved.partition)

    async def took_effect(self) -> bool:
        """The partition is handled under a later epoch, and then it is owned where it should be.

        The database is not asked before: that would take time from the hand-over.
        """
        moved = (self.partition.subscription, self.partition.partition)
        if all(n.owned != moved or n.epoch <= self.partition.epoch for n in self.world.follower.since(self.begun)):
            return False
        [now] = [
            p
            for p in await self.world.asked(lambda: self.world.client.partitions(self.partition.subscription))
            if p.partition == self.partition.partition
        ]
        return now.node == self.partition.standby


class HostClock(OwnerFault):
    name = "host's clock stepped"
    what = "an owner's time of day jumps by up to a day, either way; its monotonic clock goes on"
    moves = False

    @classmethod
    def needs(cls, world: PlainWorld) -> str | None:
        return None if world.servers.clocks else "Linux and a C compiler"

    async def inject(self) -> None:
        self.step = self.chance.choice((-86_400, -3_600, -5, 5, 3_600, 86_400))
        assert self.world.servers.clocks is not None
        self.world.servers.clocks.step(self.host.node, self.step)
        self.begun, self.wall = time.monotonic(), time.time()

    async def took_effect(self) -> bool:
        """Its handlers take the time of day for another one."""
        notes = [note for note in self.world.follower.since(self.begun) if note.process == self.host.pid]
        return any(abs(note.wall - (self.wall + note.time - self.begun) - self.step) < 2 for note in notes)

    async def heal(self) -> None:
        assert self.world.servers.clocks is not None
        self.world.servers.clocks.step(self.host.node, 0)


PLAIN = (KillHost, FreezeHost, CutHost, KillLeaseSession, EndHost, HandOver, HostClock)
