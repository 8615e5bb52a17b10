"""Placement, decided purely: given the hosts alive and the partitions wanted, who should own and who should stand by.

Never does I/O and keeps nothing between calls: the same facts give the same plan, in any process.

A partition moves in two steps, so that a hand-over costs no handler start: its target is made standby first, and owner
once it has said that it is ready. While a hand-over is under way its old owner is neither the wanted owner nor a
standby; an owner that *is* the standby, or the wanted one, has taken over from a dead one, and is left where it is.
A standby that is replaced stands by until its successor is ready.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """A host that is alive."""

    host: str
    node: str
    draining: bool = False
    resources: Mapping[str, float] = field(default_factory=dict)
    """What its node has in all, by the cluster's names: ``{"GPU": 1.0}``."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What its node is called by: ``{"zone": "a"}``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionFacts:
    """A partition that should run, and where it stands."""

    lock_id: int
    subscription: str
    owner: str | None = None
    """The host that holds the lease."""
    standby: str | None = None
    """The host that has said it is ready to take over."""
    wanted_owner: str | None = None
    wanted_standby: str | None = None
    lag: int = 0
    granted_at: float = 0.0
    needs: tuple[tuple[str, float], ...] = ()
    """The resources that the handler's actors ask for: only nodes that have them are eligible."""
    labels: tuple[tuple[str, str], ...] = ()
    """What a node must be called by to be eligible."""
    apart: str | None = None
    """Those of one word are kept on different hosts, as the partitions of one subscription are."""
    target: str | None = None
    """The node that an operator asked for."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who should own a partition and who should stand by."""

    lock_id: int
    owner: str | None
    standby: str | None


MAX_MOVES = 25
"""How many partitions may be on the move at a time, for balance: a join never stirs up everything at once."""


def plan(
    partitions: Sequence[PartitionFacts], hosts: Sequence[HostFacts], max_moves: int = MAX_MOVES
) -> list[Assignment]:
    """Return the assignments that differ from what is wanted now.

    Owners for each host end within one of each other, as far as needs allow; a standby is always on another node than
    its owner; nothing moves that need not. Without hosts everything stays assigned as it is: they may come back.
    """
    if not hosts:
        return []
    board = _Board(partitions, hosts)
    board.settle_owners()
    board.leave_draining_hosts()
    board.follow_targets()
    board.balance(max_moves)
    board.settle_standbys()
    board.balance_standbys(max_moves)
    return board.changes()


class _Board:
    """The working state of one planning: each host's owners and standbys, updated as decisions fall."""

    def __init__(self, partitions: Sequence[PartitionFacts], hosts: Sequence[HostFacts]) -> None:
        self.partitions = sorted(partitions, key=lambda p: p.lock_id)
        self.hosts = {host.host: host for host in sorted(hosts, key=lambda h: h.host)}
        self.owner: dict[int, str | None] = {}
        self.standby: dict[int, str | None] = {}
        self.owned: dict[str, list[PartitionFacts]] = {host: [] for host in self.hosts}
        self.standing: dict[str, int] = dict.fromkeys(self.hosts, 0)
        self.lag: dict[str, int] = dict.fromkeys(self.hosts, 0)
        self.kin: Counter[tuple[str, str]] = Counter()
        self._by_wants: dict[Any, tuple[frozenset[str], Sequence[str]]] = {}
        self.moving: set[int] = set()

    # Owners

    def settle_owners(self) -> None:
        """Keep every owner that can stay, accept every takeover, and give what has none to the least loaded."""
        orphans = []
        for partition in self.partitions:
            self.standby[partition.lock_id] = partition.wanted_standby
            owner = self._present_owner(partition)
            if owner is None:
                orphans.append(partition)
            else:
                self._own(partition, owner)
        behind: Counter[str] = Counter()
        for partition in orphans:
            behind[_group(partition)] += partition.lag
        # Those that are kept apart one after the other, or the last of them would find only hosts that have one.
        for partition in sorted(orphans, key=lambda p: (-behind[_group(p)], _group(p), -p.lag, p.lock_id)):
            self._own(partition, self._least_loaded(partition))

    def _present_owner(self, partition: PartitionFacts) -> str | None:
        wanted, owner, standbys = partition.wanted_owner, partition.owner, [partition.standby, partition.wanted_standby]
        took_over = owner is not None and owner in standbys
        choices = [owner, wanted, *standbys] if took_over else [wanted, owner, *standbys]
        return next((c for c in choices if c is not None and self._eligible(partition, c)), None)

    def leave_draining_hosts(self) -> None:
        """Hand over what draining hosts own, all at once: to the standby that is ready, else prepare one."""
        for host in self.hosts.values():
            if host.draining:
                for partition in list(self.owned[host.host]):
                    ready = partition.standby is not None and self._fit(partition, partition.standby)
                    self._move(partition, partition.standby if ready else self._least_loaded(partition))

    def follow_targets(self) -> None:
        """Move what an operator asked to move."""
        for partition in self.partitions:
            owner = self.owner[partition.lock_id]
            if partition.target is None or (owner is not None and self.hosts[owner].node == partition.target):
                continue
            on_node = [h.host for h in self.hosts.values() if h.node == partition.target]
            self._move(partition, self._least_loaded(partition, on_node))

    def balance(self, max_moves: int) -> None:
        """Move partitions from the fullest host to the emptiest until they are within one of each other."""
        load = {host: len(owned) for host, owned in self.owned.items()}
        lag = dict(self.lag)
        self.moving |= {p.lock_id for p in self.partitions if self._on_the_move(p)}
        while len(self.moving) < max_moves:
            move = self._best_move(load, lag)
            if move is None:
                return
            partition, source, target = move
            self.moving.add(partition.lock_id)
            load[source] -= 1
            load[target] += 1
            lag[source] -= partition.lag
            lag[target] += partition.lag
            self._move(partition, target)

    def _on_the_move(self, partition: PartitionFacts) -> bool:
        return partition.owner in self.hosts and partition.owner not in (
            self.owner[partition.lock_id],
            partition.wanted_standby,
        )

    def _best_move(self, load: Mapping[str, int], lag: Mapping[str, int]) -> tuple[PartitionFacts, str, str] | None:
        """Return the move that helps most: what is ready, keeps others apart, evens the lag, has rested for longest."""
        emptiest = sorted(load, key=lambda h: (load[h], h))
        for source in sorted(load, key=lambda h: (-load[h], h)):
            for target in emptiest:
                if load[source] - load[target] < 2:
                    break
                movable = [
                    p
                    for p in self.owned[source]
                    if p.lock_id not in self.moving and p.target is None and self._fit(p, target)
                ]
                if movable:
                    return (
                        min(movable, key=lambda p: self._reluctance(p, source, target, lag[source] - lag[target])),
                        source,
                        target,
                    )
        return None

    def _reluctance(
        self, partition: PartitionFacts, source: str, target: str, uneven: int
    ) -> tuple[bool, bool, int, int, float, int]:
        return (
            partition.standby != target,
            self.standby[partition.lock_id] != target,
            self._siblings(partition, target) - self._siblings(partition, source),
            abs(uneven - 2 * partition.lag),
            partition.granted_at,
            partition.lock_id,
        )

    def _move(self, partition: PartitionFacts, target: str | None) -> None:
        """Make ``target`` the owner when it is ready (or nobody runs the partition or is ready to), else the standby.

        What a ready standby is about to take over is given to no other host: that one would have to prepare first.
        """
        lock_id = partition.lock_id
        if target is None or target == self.owner[lock_id]:
            return
        self.moving.add(lock_id)
        followed = partition.standby is not None and self._fit(partition, partition.standby)
        if partition.standby == target or (partition.owner not in self.hosts and not followed):
            self._own(partition, target)
        else:
            self.standby[lock_id] = target

    # Standbys

    def settle_standbys(self) -> None:
        """Keep each standby that is alive and on another node than the owner; choose one where there is none."""
        without = []
        shadows: Counter[tuple[str | None, str]] = Counter()  # a node's death spreads over all others
        for partition in self.partitions:
            standby = self.standby[partition.lock_id]
            if standby is not None and self._may_stand_by(partition, standby):
                self.standing[standby] += 1
                shadows[self.owner[partition.lock_id], standby] += 1
            else:
                self.standby[partition.lock_id] = None
                without.append(partition)
        for partition in without:
            owner = self.owner[partition.lock_id]
            if owner is None:
                continue
            node = self.hosts[owner].node
            choices = [h for h in self._able(partition)[1] if h != partition.owner and self.hosts[h].node != node]
            if not choices:
                continue
            chosen = min(choices, key=lambda h: (shadows[owner, h], self.standing[h], h))
            self.standby[partition.lock_id] = chosen
            self.standing[chosen] += 1
            shadows[owner, chosen] += 1

    def balance_standbys(self, max_moves: int) -> None:
        """Spread the standbys too, so that the next death is shared; only while no owner is on the move."""
        if self.moving:
            return
        for _ in range(max_moves):
            most = max(self.standing, key=lambda h: (self.standing[h], h), default=None)
            if most is None:
                return
            swap = next(
                (
                    (p, h)
                    for h in sorted(self.standing, key=lambda h: (self.standing[h], h))
                    if self.standing[most] - self.standing[h] >= 2
                    for p in self.partitions
                    if self.standby[p.lock_id] == most and self._may_stand_by(p, h)
                ),
                None,
            )
            if swap is None:
                return
            self.standby[swap[0].lock_id] = swap[1]
            self.standing[most] -= 1
            self.standing[swap[1]] += 1

    def _may_stand_by(self, partition: PartitionFacts, host: str) -> bool:
        owner = self.owner[partition.lock_id]
        if owner is None or not self._fit(partition, host):
            return False
        return self.hosts[host].node != self.hosts[owner].node

    # Both

    def _own(self, partition: PartitionFacts, host: str | None) -> None:
        before = self.owner.get(partition.lock_id)
        if before is not None:
            self.owned[before].remove(partition)
            self.lag[before] -= partition.lag
            self.kin[before, _group(partition)] -= 1
        self.owner[partition.lock_id] = host
        if host is not None:
            self.owned[host].append(partition)
            self.lag[host] += partition.lag
            self.kin[host, _group(partition)] += 1

    def _least_loaded(self, partition: PartitionFacts, among: Iterable[str] | None = None) -> str | None:
        choices = self._able(partition)[1] if among is None else [h for h in among if self._fit(partition, h)]
        loads = [len(self.owned[h]) for h in choices]
        least = min(loads, default=0)
        return min(
            (h for h, load in zip(choices, loads, strict=True) if load == least),
            key=lambda h: (self._siblings(partition, h), self.lag[h], h),
            default=None,
        )

    def _siblings(self, partition: PartitionFacts, host: str) -> int:
        return self.kin[host, _group(partition)]

    def _fit(self, partition: PartitionFacts, host: str) -> bool:
        """Whether the host may be given the partition."""
        return self._eligible(partition, host) and not self.hosts[host].draining

    def _eligible(self, partition: PartitionFacts, host: str) -> bool:
        return host in self._able(partition)[0]

    def _able(self, partition: PartitionFacts) -> tuple[frozenset[str], Sequence[str]]:
        """Return the hosts that have what the partition asks for, and those of them that take something new."""
        wants = (partition.needs, partition.labels)
        if wants not in self._by_wants:
            able = frozenset(h.host for h in self.hosts.values() if has(h, partition.needs, partition.labels))
            self._by_wants[wants] = able, [h for h in self.hosts if h in able and not self.hosts[h].draining]
        return self._by_wants[wants]

    def changes(self) -> list[Assignment]:
        return [
            Assignment(p.lock_id, self.owner[p.lock_id], self.standby[p.lock_id])
            for p in self.partitions
            if (self.owner[p.lock_id], self.standby[p.lock_id]) != (p.wanted_owner, p.wanted_standby)
        ]


def has(host: HostFacts, needs: Iterable[tuple[str, float]], labels: Iterable[tuple[str, str]]) -> bool:
    """Whether a host has the resources and the labels that a partition asks for."""
    return all(host.resources.get(name, 0.0) >= amount for name, amount in needs) and all(
        host.labels.get(name) == value for name, value in labels
    )


def _group(partition: PartitionFacts) -> str:
    """What is kept apart: all partitions of a subscription, or all subscriptions of a word."""
    return f"apart {partition.apart}" if partition.apart is not None else partition.subscription


def applied(partition: PartitionFacts, assignment: Assignment) -> PartitionFacts:
    """Return the partition's facts once the assignment is written."""
    return replace(partition, wanted_owner=assignment.owner, wanted_standby=assignment.standby)
