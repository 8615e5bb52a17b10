"""Faults of Ray: actors and nodes killed and frozen, and the head lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable, Mapping, Sequence

from headwater.cluster.status import PartitionStatus
from tests.chaos.faults.base import Fault
from tests.chaos.faults.hosts import HandOver
from tests.chaos.faults.network import DEAD_AFTER, ENDS_WITHIN
from tests.chaos.follower import Wanted
from tests.chaos.processes import frozen, gone
from tests.chaos.rayworld import HANDLER, HOST, RayWorld
from tests.chaos.world import LEASE, PATIENCE
from tests.plugins.processes import descendants
from tests.plugins.waiting import until

BRIEFLY = (0.5, 1.5)
"""For how long a raylet is frozen that Ray does not give up, in seconds."""
AFTER_DEATH = (DEAD_AFTER + 1, DEAD_AFTER + 2)
"""The same for one that Ray does give up."""


class NodeFault(Fault[RayWorld]):
    """Something happens to processes of a node that owns partitions."""

    moves = True
    number = signal.SIGKILL
    node: str
    pids: Sequence[int]

    def aim(self, partitions: Sequence[PartitionStatus]) -> Sequence[PartitionStatus]:
        """Choose the owner of some partition."""
        node = self.chance.choice(partitions).node
        assert node is not None
        self.node = node
        return [p for p in partitions if p.node == node]

    def aimed_at(self) -> Sequence[int]:
        """Return the processes that get the signal."""
        raise NotImplementedError

    async def inject(self) -> None:
        # In a cluster that is new, the actors it is aimed at may not have handled anything yet.
        await until(self._found, deadline=PATIENCE, what=f"a process for {self.name!r}")
        _send(self.pids, self.number)

    def _found(self) -> bool:
        self.pids = self.aimed_at()
        return bool(self.pids)

    async def took_effect(self) -> bool:
        # What is frozen may be gone by now: a worker that was ending, a consumer that was given up and replaced.
        return all(gone(pid) or (self.number == signal.SIGSTOP and frozen(pid)) for pid in self.pids)

    def frozen(self) -> Sequence[int]:
        """Return what got the signal: what was frozen may run handlers."""
        return self.pids if self.number == signal.SIGSTOP else ()

    async def heal(self) -> None:
        if self.number == signal.SIGSTOP:
            _send(self.pids, signal.SIGCONT)


class KillHostActor(NodeFault):
    name = "host actor killed"
    what = "SIGKILL to the actor that owns a node's partitions"
    target = 1.0

    def aimed_at(self) -> Sequence[int]:
        return self.world.actors(self.node, HOST)


class FreezeHostActor(KillHostActor):
    name = "host actor frozen"
    what = "SIGSTOP to the actor that owns a node's partitions; SIGCONT when another one has taken over"
    target = LEASE + 1
    number = signal.SIGSTOP


class KillRaylet(NodeFault):
    name = "raylet killed"
    what = "SIGKILL to a node's raylet; its workers end when they notice"
    target = 2.0

    def aimed_at(self) -> Sequence[int]:
        return [self.world.raylet(self.node)]


class FreezeRaylet(NodeFault):
    name = "raylet frozen"
    what = (
        "SIGSTOP to a node's raylet alone, briefly, or until Ray takes the node for dead and ends it: its host goes on"
    )
    target = LEASE + 1
    moves = False
    number = signal.SIGSTOP
    rarely = 2

    def aimed_at(self) -> Sequence[int]:
        return [self.world.raylet(self.node)]

    def frozen(self) -> Sequence[int]:
        """Return nothing: no handler runs in a raylet."""
        return ()

    async def last(self) -> None:
        self.taken_for_dead = self.chance.random() < 0.5
        await asyncio.sleep(self.chance.uniform(*(AFTER_DEATH if self.taken_for_dead else BRIEFLY)))

    async def heal(self) -> None:
        await super().heal()
        if self.taken_for_dead:
            # It may learn of it late; whether it ends at all is Ray's business, and the next fault may meet it.
            with contextlib.suppress(AssertionError):
                await until(lambda: all(map(gone, self.pids)), deadline=ENDS_WITHIN)


class KillNode(NodeFault):
    name = "node killed"
    what = "SIGKILL to every process of a node at once"
    target = 2.0

    def aimed_at(self) -> Sequence[int]:
        raylet = self.world.raylet(self.node)
        return [raylet, *(process.pid for process in descendants(raylet))]


class FreezeNode(KillNode):
    name = "node frozen"
    what = "SIGSTOP to every process of a node; SIGCONT when others have taken over"
    target = LEASE + 1
    number = signal.SIGSTOP


class HandlerFault(NodeFault):
    """Something happens to one of the handler actors of ``pool``; goes on when its successor handles something."""

    def aim(self, partitions: Sequence[PartitionStatus]) -> Sequence[PartitionStatus]:
        """Choose the owner of the subscription with handler actors."""
        [pool] = [p for p in partitions if p.subscription == "pool"]
        assert pool.node is not None
        self.node = pool.node
        return [pool]

    def aimed_at(self) -> Sequence[int]:
        """Only an actor that handles something now, as its notes say: others may belong to a standby."""
        actors = set(self.world.actors(self.node, HANDLER))
        self.busy = [note for note in self.world.follower.since(0) if note.process in actors][-1:]
        return [note.process for note in self.busy]

    def wanted(self, concerned: Sequence[PartitionStatus], head: int) -> Mapping[tuple[str, int], Wanted]:
        """Return what shows that the actor has a successor."""
        return {note.owned: Wanted(-1, 0, note.consumer, note.process) for note in self.busy}


class KillHandlerActor(HandlerFault):
    name = "handler actor killed"
    what = "SIGKILL to one of the consumers of a subscription"


class FreezeHandlerActor(HandlerFault):
    name = "handler actor frozen"
    what = "SIGSTOP to one of the consumers: given up after the handler's time-out of 2 s, and replaced"
    number = signal.SIGSTOP


class LoseHead(Fault[RayWorld]):
    name = "head and GCS killed"
    what = "SIGKILL to the head's GCS and raylet; afterwards a new cluster on the same database takes over"
    rarely = 3

    async def inject(self) -> None:
        self.pids = self.world.head_processes()
        _send(self.pids, signal.SIGKILL)

    async def took_effect(self) -> bool:
        return bool(self.pids) and all(gone(pid) for pid in self.pids)

    async def heal(self) -> None:
        if not self.world.head_processes():
            await self.world.new_cluster()


class FreezeHead(Fault[RayWorld]):
    name = "head and GCS frozen"
    what = "SIGSTOP to the head's GCS and raylet; SIGCONT after a while: hosts go on"
    target = LEASE + 1
    hold = (1.0, 4.0)

    async def inject(self) -> None:
        self.pids = self.world.head_processes()
        _send(self.pids, signal.SIGSTOP)

    async def took_effect(self) -> bool:
        return len(self.pids) > 1 and all(map(frozen, self.pids))

    async def heal(self) -> None:
        _send(self.pids, signal.SIGCONT)


class RestartGcs(Fault[RayWorld]):
    name = "GCS killed and back"
    what = "SIGKILL to the GCS alone, which is started again with its state on disk: hosts go on, and are found again"
    target = LEASE + 1

    async def inject(self) -> None:
        self.pids = self.world.gcs()
        _send(self.pids, signal.SIGKILL)

    async def took_effect(self) -> bool:
        return bool(self.pids) and all(map(gone, self.pids))

    async def last(self) -> None:
        """Wait until another one runs: Ray starts it, and a node that is added then proves that it works."""
        await until(lambda: set(self.world.gcs()) - set(self.pids), deadline=PATIENCE, what="waiting for another GCS")


class KillOwnerWithoutHead(KillHostActor):
    name = "owner killed without a head"
    what = "SIGKILL to the head, and then to the actor that owns a node's partitions: Ray is not asked for a takeover"
    rarely = 3

    async def inject(self) -> None:
        head = self.world.head_processes()
        self.pids = self.aimed_at()
        _send(head, signal.SIGKILL)
        _send(self.pids, self.number)
        self.pids = [*self.pids, *head]

    async def heal(self) -> None:
        if not self.world.head_processes():
            await self.world.new_cluster()


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


RAY = (
    KillHostActor, FreezeHostActor, KillRaylet, KillNode, FreezeNode, KillHandlerActor, FreezeHandlerActor, LoseHead,
    KillOwnerWithoutHead, HandOver, FreezeRaylet, FreezeHead, RestartGcs,
)  # fmt: skip
