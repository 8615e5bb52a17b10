"""How much each host and each node has, while a plan is made: partitions, lag, those that are kept apart, resources.

Counts only; what may go where is the plan's to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

Needs = tuple[tuple[str, float], ...]

ROUNDING = 1e-6
"""What fractions of a resource may miss of a whole one, and still make it up."""


class Weight(NamedTuple):
    """What one partition counts for."""

    crowds: tuple[str, ...]
    """The groups of which no node should have more than another."""
    lag: int
    needs: Needs


class Tally:
    """Counts of what was put where.

    1. A partition counts on one host at most; putting it elsewhere takes it away from where it was.
    2. What is lent is taken on top, by standbys: it leaves less to other standbys, and nothing less to owners.
    """

    def __init__(self, nodes: Mapping[str, str]) -> None:
        self._node = nodes
        self._place: dict[int, tuple[str, Weight]] = {}
        self.hosts: dict[str, int] = dict.fromkeys(nodes, 0)
        self.nodes: dict[str, int] = dict.fromkeys(nodes.values(), 0)
        self.lag: dict[str, int] = dict.fromkeys(nodes.values(), 0)
        """By node."""
        self.kin: Counter[tuple[str, str]] = Counter()
        """By node and group."""
        self._used: dict[tuple[str, str], float] = {}
        self._lent: dict[tuple[str, str], float] = {}
        self._lenders: set[tuple[int, str]] = set()

    def put(self, lock_id: int, host: str | None, weight: Weight) -> None:
        """Count a partition on a host, and no longer where it was; None: nowhere."""
        if lock_id in self._place:
            self._count(*self._place.pop(lock_id), -1)
        if host is not None:
            self._place[lock_id] = host, weight
            self._count(host, weight, 1)

    def _count(self, host: str, weight: Weight, sign: int) -> None:
        node = self._node[host]
        self.hosts[host] += sign
        self.nodes[node] += sign
        self.lag[node] += sign * weight.lag
        for crowd in weight.crowds:
            self.kin[node, crowd] += sign
        for name, amount in weight.needs:
            self._used[host, name] = self._used.get((host, name), 0.0) + sign * amount

    def has_room(self, lock_id: int, host: str, needs: Needs, has: Mapping[str, float]) -> bool:
        """Whether those that are put on a host leave enough for this one; it is there already: yes."""
        if self._at(lock_id) == host:
            return True
        return all(
            self._used.get((host, name), 0.0) + amount <= has.get(name, 0.0) + ROUNDING for name, amount in needs
        )

    def lend(self, lock_id: int, host: str | None, needs: Needs, *, instead_of: str | None = None) -> None:
        """Take what a partition needs on a host where it is not put, or no longer will be; once for each host."""
        for each, sign in ((instead_of, -1), (host, 1)):
            if not needs or each is None or self._at(lock_id) == each:
                continue
            if ((lock_id, each) in self._lenders) == (sign > 0):
                continue
            self._lenders ^= {(lock_id, each)}
            for name, amount in needs:
                self._lent[each, name] = self._lent.get((each, name), 0.0) + sign * amount

    def lends(self, lock_id: int, host: str, needs: Needs, has: Mapping[str, float]) -> bool:
        """Whether owners and standbys leave enough on a host for one more standby; what has it already: yes."""
        if not needs or self._at(lock_id) == host or (lock_id, host) in self._lenders:
            return True
        return all(
            self._used.get((host, name), 0.0) + self._lent.get((host, name), 0.0) + amount
            <= has.get(name, 0.0) + ROUNDING
            for name, amount in needs
        )

    def _at(self, lock_id: int) -> str | None:
        return self._place[lock_id][0] if lock_id in self._place else None
