"""Placement, decided purely: given the hosts alive and the partitions wanted, who should own and who should stand by.

Never does I/O and keeps nothing between calls: the same facts give the same plan, in any process.

A partition moves in two steps, so that a hand-over costs no handler start: its target is made standby first, and owner
once it has said that it is ready. While a hand-over is under way its old owner is neither the wanted owner nor a
standby; an owner that *is* the standby, or the wanted one, has taken over from a dead one, and is left where it is.
A standby that is replaced stands by until its successor is ready.

Moves come to an end because each makes the placement better by a measure that has a least: first how even the nodes
are, then the hosts of a node, then how far apart are those that are kept apart, then those that are hot. Two that
change places are made owners in one plan, once both are ready: in between nothing is less even than before.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from headwater.cluster.tally import Tally, Weight


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
    troubles: Mapping[int, str] = field(default_factory=dict)
    """Why it cannot run partitions, by their lock ids: as long as another host can, it is given none of them."""


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
    hot: bool = False
    """Whether it has lagged for long: such ones are spread over the nodes, too."""
    needs: tuple[tuple[str, float], ...] = ()
    """The resources that the handler's actors ask for, all together: taken where it runs and where it stands by."""
    labels: tuple[tuple[str, str], ...] = ()
    """What a node must be called by to be eligible."""
    apart: str | None = None
    """Those of one word are kept on different nodes, as the partitions of one subscription are."""
    target: str | None = None
    """The node that an operator asked for."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who should own a partition and who should stand by."""

    lock_id: int
    owner: str | None
    standby: str | None


class _Exchange(NamedTuple):
    """A partition to move, to which host, and what comes back for it, if anything."""

    partition: PartitionFacts
    target: str
    back: PartitionFacts | None = None


MAX_MOVES = 25
"""How many partitions may be on the move at a time, for balance: a join never stirs up everything at once."""

ALIKE: Final = 10
"""Of so many nodes that have as much as each other the best move is looked for."""
HOT: Final = "\0hot"
"""The group of what lags for long: no subscription is called so."""


def plan(
    partitions: Sequence[PartitionFacts], hosts: Sequence[HostFacts], max_moves: int = MAX_MOVES
) -> list[Assignment]:
    """Return the assignments that differ from what is wanted now.

    Owners for each node, and for each host of a node, end within one of each other, as far as needs allow; so do the
    partitions of one subscription. A standby is always on another node than its owner; nothing moves that need not.
    What a host cannot run is moved to one that may be able to. What has no room anywhere is given to nobody. Without
    hosts everything stays assigned as it is: they may come back.
    """
    if not hosts:
        return []
    board = _Board(partitions, hosts)
    board.settle_owners()
    board.leave_draining_hosts()
    board.leave_troubled_hosts()
    board.follow_targets()
    board.balance(max_moves)
    board.spread(max_moves)
    board.settle_standbys()
    board.balance_standbys(max_moves)
    return board.changes()


class _Board:
    """The working state of one planning: each host's owners and standbys, updated as decisions fall.

    1. ``owner`` and ``standby`` are what will be written down.
    2. ``tally`` counts each partition where it will be once the moves under way are done, and nowhere else.
    """

    def __init__(self, partitions: Sequence[PartitionFacts], hosts: Sequence[HostFacts]) -> None:
        self.partitions = sorted(partitions, key=lambda p: p.lock_id)
        self.hosts = {host.host: host for host in sorted(hosts, key=lambda h: h.host)}
        self.node = {host.host: host.node for host in self.hosts.values()}
        self.tally = Tally(self.node)
        self.owner: dict[int, str | None] = {}
        self.standby: dict[int, str | None] = {}
        self.owned: dict[str, list[PartitionFacts]] = {host: [] for host in self.hosts}
        self.on_node: dict[str, list[str]] = {}
        for host in self.hosts.values():
            self.on_node.setdefault(host.node, []).append(host.host)
        self.standing: dict[str, int] = dict.fromkeys(self.hosts, 0)
        self.troubled = {lock_id for host in self.hosts.values() for lock_id in host.troubles}
        self._by_wants: dict[Any, tuple[frozenset[str], Sequence[str]]] = {}
        self.moving: set[int] = set()

    # Owners

    def settle_owners(self) -> None:
        """Keep every owner that can stay, accept every takeover, and give what has none to the least loaded."""
        orphans = []
        # Where there is not room for all, what runs already stays.
        for partition in sorted(self.partitions, key=self._by_right):
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
            self._own(partition, self._least_loaded(partition) or self._least_loaded(partition, troubled=True))

    def _by_right(self, partition: PartitionFacts) -> tuple[bool, bool, float, int]:
        if not partition.needs:
            return True, True, 0.0, partition.lock_id
        owner = self.hosts.get(partition.owner or "")
        return (
            owner is None,
            owner is not None and partition.lock_id in owner.troubles,
            partition.granted_at,
            partition.lock_id,
        )

    def _present_owner(self, partition: PartitionFacts) -> str | None:
        wanted, owner, standbys = partition.wanted_owner, partition.owner, [partition.standby, partition.wanted_standby]
        took_over = owner is not None and owner in standbys
        choices = [owner, wanted, *standbys] if took_over else [wanted, owner, *standbys]
        return next(
            (c for c in choices if c is not None and self._eligible(partition, c) and self._room(partition, c)), None
        )

    def leave_draining_hosts(self) -> None:
        """Hand over what draining hosts own, all at once: to the standby that is ready, else prepare one."""
        for host in self.hosts.values():
            if host.draining:
                for partition in list(self.owned[host.host]):
                    self._leave(partition)

    def leave_troubled_hosts(self) -> None:
        """Hand over what hosts cannot run, all at once, if there is one that may be able to; else it stays."""
        if self.troubled:
            for host in self.hosts.values():
                for partition in [p for p in self.owned[host.host] if p.lock_id in host.troubles]:
                    self._leave(partition)

    def _leave(self, partition: PartitionFacts) -> None:
        prepared = (partition.standby, partition.wanted_standby)
        ready = next((h for h in prepared if h is not None and self._fit(partition, h)), None)
        self._move(partition, ready or self._least_loaded(partition))

    def follow_targets(self) -> None:
        """Move what an operator asked to move."""
        for partition in self.partitions:
            owner = self.owner[partition.lock_id]
            if partition.target is None or (owner is not None and self.hosts[owner].node == partition.target):
                continue
            on_node = self.on_node.get(partition.target, ())
            prepared = [h for h in (partition.standby, partition.wanted_standby) if h in on_node]
            ready = next((h for h in prepared if h is not None and self._fit(partition, h)), None)
            self._move(partition, ready or self._least_loaded(partition, on_node))

    def balance(self, max_moves: int) -> None:
        """Move partitions from the fullest node to the emptiest until they are within one of each other."""
        self.moving |= {p.lock_id for p in self.partitions if self._on_the_move(p)}
        while len(self.moving) < max_moves:
            move = self._best_move()
            if move is None:
                return
            self._move(*move)

    def _on_the_move(self, partition: PartitionFacts) -> bool:
        return partition.owner in self.hosts and partition.owner not in (
            self.owner[partition.lock_id],
            partition.wanted_standby,
        )

    def _best_move(self) -> tuple[PartitionFacts, str] | None:
        """Return the move that helps most: keeps others apart, is ready, evens the lag, has rested for longest."""
        nodes, hosts = self.tally.nodes, self.tally.hosts
        emptiest = sorted(self.on_node, key=lambda n: (nodes[n], n))
        fullest = emptiest[::-1]
        for target in emptiest:
            for gap, alike in itertools.groupby(fullest, key=lambda n: nodes[n] - nodes[target]):
                if gap < 2:
                    break
                sources = [h for node in itertools.islice(alike, ALIKE) for h in self.on_node[node]]
                if move := self._best_between(sources, self.on_node[target]):
                    return move
        for node in self.on_node.values():
            for source in node if len(node) > 1 else ():
                roomy = [h for h in node if hosts[source] - hosts[h] >= 2]
                if roomy and (move := self._best_between([source], roomy)):
                    return move
        return None

    def _best_between(self, sources: Sequence[str], targets: Sequence[str]) -> tuple[PartitionFacts, str] | None:
        choices = [
            (self._worse(p, self.hosts[source].node, self.hosts[target].node), p, source, target)
            for source in sources
            for p in self.owned[source]
            if self._movable(p) and (target := self._emptiest(p, targets)) is not None
        ]
        if not choices:
            return None
        least = min(worse for worse, *_ in choices)
        alike: dict[tuple[str, str], int] = {}
        _, partition, target = min(
            (self._reluctance(p, source, target, alike), p, target)
            for worse, p, source, target in choices
            if worse == least
        )
        return partition, target

    def _movable(self, partition: PartitionFacts) -> bool:
        return partition.lock_id not in self.moving and partition.target is None

    def _emptiest(self, partition: PartitionFacts, hosts: Iterable[str]) -> str | None:
        return min(
            (h for h in hosts if self._fit(partition, h)),
            key=lambda h: (partition.standby != h, self.standby[partition.lock_id] != h, self.tally.hosts[h], h),
            default=None,
        )

    def _reluctance(
        self, partition: PartitionFacts, source: str, target: str, alike: dict[tuple[str, str], int]
    ) -> tuple[Any, ...]:
        a, b, kin = self.hosts[source].node, self.hosts[target].node, self.tally.kin
        group = _group(partition)
        if (a, group) not in alike:
            alike[a, group] = sum(kin[each, group] >= kin[a, group] for each in self.on_node)
        return (
            alike[a, group],  # of those that are on few nodes as often, the right one is moved first
            *self._unready(partition, target),
            abs(self.tally.lag[a] - self.tally.lag[b] - 2 * partition.lag),
            partition.granted_at,
            partition.lock_id,
        )

    def _unready(self, partition: PartitionFacts, target: str) -> tuple[bool, bool]:
        return partition.standby != target, self.standby[partition.lock_id] != target

    def _worse(self, partition: PartitionFacts, source: str, target: str) -> tuple[int, int]:
        """How much less apart its kin, and what is hot, are once it has moved from one node to another."""
        if source == target:
            return 0, 0
        kin = self.tally.kin
        group = _group(partition)
        return (
            kin[target, group] - kin[source, group] + 1,
            kin[target, HOT] - kin[source, HOT] + 1 if partition.hot else 0,
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
            self._prepare(partition, target)

    def _prepare(self, partition: PartitionFacts, target: str) -> None:
        self.standby[partition.lock_id] = target
        self.tally.put(partition.lock_id, target, _weight(partition))

    # Those that are kept apart

    def spread(self, max_moves: int) -> None:
        """Let those change places that are kept apart and are not: no node has more or less than before by that.

        Without needs two nodes that differ by two in the partitions of a subscription always have such a pair: whatever
        makes up for the difference on the other node is something of which that one has more.
        """
        while len(self.moving) + 2 <= max(2, max_moves):
            better = next(filter(None, map(self._best_exchange, self._crowds())), None)
            if better is None:
                return
            if better.back is None:
                self._move(better.partition, better.target)
            else:
                self._exchange(better.partition, better.back)

    def _crowds(self) -> list[str]:
        """Return the groups of which one node has more than one more than another."""
        most: dict[str, int] = {}
        nodes: Counter[str] = Counter()
        for (_, crowd), count in self.tally.kin.items():
            if count > most.get(crowd, 0):
                most[crowd] = count
            nodes[crowd] += count > 0
        suspects = [crowd for crowd, count in most.items() if count > 1]
        kin = self.tally.kin
        return [
            crowd
            for crowd in sorted(suspects, key=lambda each: (each == HOT, each))
            if nodes[crowd] < len(self.on_node) or most[crowd] - min(kin[n, crowd] for n in self.on_node) > 1
        ]

    def _best_exchange(self, crowd: str) -> _Exchange | None:
        """Return what makes the nodes that differ most in a crowd differ less; None when nothing does."""
        fewest = sorted(self.on_node, key=lambda n: (self.tally.kin[n, crowd], n))
        for a in reversed(fewest):
            for b in fewest:
                if self.tally.kin[a, crowd] - self.tally.kin[b, crowd] < 2:
                    break
                best = min(self._exchanges(crowd, a, b), key=lambda choice: choice[0], default=None)
                if best is not None:
                    return best[1]
        return None

    def _exchanges(self, crowd: str, a: str, b: str) -> Iterator[tuple[tuple[Any, ...], _Exchange]]:
        """Yield what makes things better between two nodes, with what is to be compared: the least is the best."""
        hosts, nodes = self.tally.hosts, self.tally.nodes
        for x, y in itertools.product(self.on_node[a], self.on_node[b]):
            leaving = [p for p in self.owned[x] if self._movable(p) and crowd in _crowds_of(p) and self._fit(p, y)]
            coming = [q for q in self.owned[y] if self._movable(q) and crowd not in _crowds_of(q) and self._fit(q, x)]
            for p in leaving:
                out = self._worse(p, a, b)
                # The fuller one gives one away, and is then the less full one.
                if nodes[a] > nodes[b] and hosts[x] > hosts[y] and out < (0, 0):
                    yield (out, 0, sum(self._unready(p, y)), p.lock_id, 0), _Exchange(p, y)
                for q in coming:
                    back = self._worse(q, b, a)
                    gain = out[0] + back[0], out[1] + back[1]
                    if gain < (0, 0):
                        unready = sum(self._unready(p, y)) + sum(self._unready(q, x))
                        yield (gain, 1, unready, p.lock_id, q.lock_id), _Exchange(p, y, q)

    def _exchange(self, first: PartitionFacts, second: PartitionFacts) -> None:
        """Let two change places as soon as each is ready where the other one is."""
        there, here = self.owner[second.lock_id], self.owner[first.lock_id]
        assert there is not None
        assert here is not None
        self.moving |= {first.lock_id, second.lock_id}
        act = self._own if first.standby == there and second.standby == here else self._prepare
        act(first, there)
        act(second, here)

    # Standbys

    def settle_standbys(self) -> None:
        """Keep each standby that is alive and on another node than the owner; choose one where there is none."""
        without = []
        shadows: Counter[tuple[str | None, str]] = Counter()  # a node's death spreads over all others
        sizes = Counter(map(_group, self.partitions))
        kin: Counter[tuple[str, str]] = Counter()  # nor do those that are kept apart meet again by it

        def stand(partition: PartitionFacts, standby: str) -> None:
            self.standby[partition.lock_id] = standby
            self.standing[standby] += 1
            shadows[self.owner[partition.lock_id], standby] += 1
            kin[self.hosts[standby].node, _group(partition)] += 1
            self.tally.lend(partition.lock_id, standby, partition.needs)

        for partition in self.partitions:
            if partition.needs:  # an owner that hands over still has it
                self.tally.lend(partition.lock_id, self.owner[partition.lock_id], partition.needs)
        for partition in self.partitions:
            standby = self.standby[partition.lock_id]
            if standby is not None and self._may_stand_by(partition, standby):
                stand(partition, standby)
            else:
                without.append(partition)
        for partition in without:
            before, self.standby[partition.lock_id] = self.standby[partition.lock_id], None
            owner = self.owner[partition.lock_id]
            if owner is None:
                continue
            group = _group(partition)
            takers = [h for h in self._able(partition)[1] if h != partition.owner and self.node[h] != self.node[owner]]
            plain = not partition.needs and partition.lock_id not in self.troubled
            able = takers if plain else [h for h in takers if self._may_stand_by(partition, h)]
            # Where nobody can run it a host goes on trying, rather than each in turn.
            if not able and partition.lock_id in self.troubled:
                able = [h for h in takers if self._may_stand_by(partition, h, troubled=True)]
                able = [before] if before in able else able
            if able and sizes[group] == 1:
                stand(partition, min(able, key=lambda h: (shadows[owner, h], self.standing[h], h)))
            elif able:
                near = {
                    node: (self.tally.kin.get((node, group), 0), kin.get((node, group), 0)) for node in self.on_node
                }
                stand(partition, min(able, key=lambda h: (near[self.node[h]], shadows[owner, h], self.standing[h], h)))

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
                    (self._most_apart(choices, h), h)
                    for h in sorted(self.standing, key=lambda h: (self.standing[h], h))
                    if self.standing[most] - self.standing[h] >= 2
                    and (
                        choices := [
                            p for p in self.partitions if self.standby[p.lock_id] == most and self._may_stand_by(p, h)
                        ]
                    )
                ),
                None,
            )
            if swap is None:
                return
            partition, host = swap
            self.standby[partition.lock_id] = host
            self.tally.lend(partition.lock_id, host, partition.needs, instead_of=most)
            self.standing[most] -= 1
            self.standing[host] += 1

    def _most_apart(self, partitions: Sequence[PartitionFacts], host: str) -> PartitionFacts:
        return min(partitions, key=lambda p: (self.tally.kin[self.hosts[host].node, _group(p)], p.lock_id))

    def _may_stand_by(self, partition: PartitionFacts, host: str, *, troubled: bool = False) -> bool:
        owner = self.owner[partition.lock_id]
        facts = self.hosts.get(host)
        return (
            facts is not None
            and owner is not None
            and facts.node != self.hosts[owner].node
            and not facts.draining
            and (troubled or partition.lock_id not in facts.troubles)
            and self._eligible(partition, host)
            and self.tally.lends(partition.lock_id, host, partition.needs, facts.resources)
        )

    # Both

    def _own(self, partition: PartitionFacts, host: str | None) -> None:
        before = self.owner.get(partition.lock_id)
        if before is not None:
            self.owned[before].remove(partition)
        self.owner[partition.lock_id] = host
        if host is not None:
            self.owned[host].append(partition)
        self.tally.put(partition.lock_id, host, _weight(partition))

    def _least_loaded(
        self, partition: PartitionFacts, among: Iterable[str] | None = None, *, troubled: bool = False
    ) -> str | None:
        nodes = self.tally.nodes
        if among is None and not partition.needs and (troubled or partition.lock_id not in self.troubled):
            fit: Sequence[str] = self._able(partition)[1]  # without a look at each: there may be a thousand
        else:
            among = self._able(partition)[1] if among is None else among
            fit = [h for h in among if self._fit(partition, h, troubled=troubled)]
        loads = [nodes[node] for node in map(self.node.__getitem__, fit)]
        least = min(loads, default=0)
        return min(
            (h for h, load in zip(fit, loads, strict=True) if load == least),
            key=lambda h: (self._siblings(partition, h), self._lag(h), self.tally.hosts[h], h),
            default=None,
        )

    def _siblings(self, partition: PartitionFacts, host: str) -> int:
        return self.tally.kin.get((self.node[host], _group(partition)), 0)

    def _lag(self, host: str) -> int:
        return self.tally.lag[self.node[host]]

    def _fit(self, partition: PartitionFacts, host: str, *, troubled: bool = False) -> bool:
        """Whether the host may be given the partition."""
        return (
            self._eligible(partition, host)
            and not self.hosts[host].draining
            and (troubled or partition.lock_id not in self.hosts[host].troubles)
            and self._room(partition, host)
        )

    def _room(self, partition: PartitionFacts, host: str) -> bool:
        """Whether what is owned there leaves what the partition needs: a standby makes room for an owner."""
        return not partition.needs or self.tally.has_room(
            partition.lock_id, host, partition.needs, self.hosts[host].resources
        )

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


def _crowds_of(partition: PartitionFacts) -> tuple[str, ...]:
    return (_group(partition), HOT) if partition.hot else (_group(partition),)


def _weight(partition: PartitionFacts) -> Weight:
    return Weight(_crowds_of(partition), partition.lag, partition.needs)


def applied(partition: PartitionFacts, assignment: Assignment) -> PartitionFacts:
    """Return the partition's facts once the assignment is written."""
    return replace(partition, wanted_owner=assignment.owner, wanted_standby=assignment.standby)
