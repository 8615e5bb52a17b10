"""What an operator's word does to parked events: which are handled again, which wait, which are given up.

Decides only, from what is parked now; whoever keeps the events writes it down in the same transaction.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

from headwater.storage.errors import InvalidArgument

FAILED: Final = "failed"
"""Why an event is parked: its handler failed, and somebody has to decide what becomes of it."""
BEHIND: Final = "behind"
"""It waits for an earlier one of its key, and follows by itself when that is settled."""
HELD: Final = "held"
"""It waited for an earlier one that is parked no more, and nobody has asked for this one: it waits for somebody."""

SLOWEST: Final = 1e-6
"""The lowest rate of a retry, in events a second: times beyond that cannot be kept."""

Status: TypeAlias = Literal["parked", "retrying", "discarded"]


class Open(NamedTuple):
    """A parked event that is not settled."""

    position: int
    key: str | None
    status: str
    reason: str
    begun: bool
    """Whether an attempt was begun since it was asked for whose end nobody has told."""
    matched: bool
    """Whether it is one of those that are meant."""

    @property
    def blocks(self) -> bool:
        """Whether later ones of its key wait until somebody decides."""
        return self.status == "parked" and self.reason != BEHIND


@dataclass(frozen=True, slots=True)
class ParkedChange:
    """What becomes of parked events, or by a dry run would become of them. All are positions, in order."""

    positions: tuple[int, ...] = ()
    """What was asked for: those that are handled again, taken back or given up."""
    earlier: int = 0
    """How many of these come along because they stand before a chosen one of their key."""
    behind: int = 0
    """How many of these come along because they only waited behind a chosen one of their key."""
    to_deliver: tuple[int, ...] = ()
    """What is handed to the handler because of it."""
    under_way: tuple[int, ...] = ()
    """What was begun already, and can be taken back no more: it ends as it ends."""
    left: int = 0
    """How many others stay parked: beyond the limit, or behind what was given up."""

    def describe(self, verb: str) -> str:
        """Say it in a few words, for the audit."""
        parts = [f"{len(self.positions)} event{'' if len(self.positions) == 1 else 's'}"]
        along = [f"{self.earlier} before" if self.earlier else "", f"{self.behind} behind" if self.behind else ""]
        if any(along):
            parts.append(f"{' and '.join(filter(None, along))} the chosen ones among them")
        if self.under_way:
            parts.append(f"{len(self.under_way)} under way")
        if self.to_deliver and verb.startswith("discard"):
            parts.append(f"{len(self.to_deliver)} to be delivered")
        if self.left:
            parts.append(f"{self.left} stay parked")
        return ", ".join(parts)


@dataclass(slots=True)
class Plan:
    """What is to be written: the new status and reason of each event that changes."""

    change: ParkedChange = field(default_factory=ParkedChange)
    becomes: dict[int, tuple[Status, str]] = field(default_factory=dict)


def retry(rows: Sequence[Open], limit: int | None = None) -> Plan:
    """Let parked events be handled again, at most ``limit``, in order.

    Those before a chosen one of its key come along, or the order would break; so do those that only waited behind it.
    When the limit ends that, the next one of the key waits for somebody to decide.
    """
    _check(limit)
    parked = [row for row in rows if row.status == "parked"]
    last = {row.key: row.position for row in parked if row.matched and row.key is not None}
    ended: set[str] = set()
    wanted: list[Open] = []
    for row in parked:
        if row.key is None:
            chosen = row.matched
        elif row.position <= last.get(row.key, 0):
            chosen = True
        else:
            if row.reason != BEHIND or row.key not in last:
                ended.add(row.key)
            chosen = row.key not in ended
        if chosen:
            wanted.append(row)
    taken = wanted if limit is None else wanted[:limit]
    positions = tuple(row.position for row in taken)
    along = [row for row in taken if not row.matched]
    behind = sum(row.position > last[row.key] for row in along if row.key is not None)
    plan = Plan(ParkedChange(positions, len(along) - behind, behind, positions, left=len(wanted) - len(taken)))
    plan.becomes = {row.position: ("retrying", row.reason) for row in taken}
    _hold_first(plan, wanted[len(taken) :], {row.key for row in taken})
    return plan


def cancel(rows: Sequence[Open]) -> Plan:
    """Take back what was asked to be handled again and was not begun, with the later ones of the same keys.

    What was begun ends as it ends, and nothing follows it by itself.
    """
    first: dict[str, int] = {}
    for row in rows:
        if row.status == "retrying" and row.matched and row.key is not None:
            first.setdefault(row.key, row.position)
    taken = [
        row
        for row in rows
        if row.status == "retrying" and (row.matched or (row.key in first and row.position > first[row.key]))
    ]
    back = [row for row in taken if not row.begun]
    begun = [row for row in taken if row.begun]
    positions = tuple(row.position for row in back)
    along = sum(not row.matched for row in back)
    plan = Plan(ParkedChange(positions, behind=along, under_way=tuple(row.position for row in begun)))
    plan.becomes = {row.position: ("parked", row.reason) for row in taken}
    for row in begun:  # when its owner has died with it, it is not handed out again
        plan.becomes[row.position] = ("parked", _held(row.reason))
    waits = [row for row in rows if row.key in first and row.position >= first[row.key] and not row.begun]
    _hold_first(plan, waits, set(first))
    return plan


def discard(rows: Sequence[Open], limit: int | None = None, *, release: bool = False) -> Plan:
    """Give parked events up, at most ``limit``. What waited behind them waits on, unless it is to be released."""
    _check(limit)
    meant = [row for row in rows if row.matched]
    gone = meant if limit is None else meant[:limit]
    given_up = {row.position for row in gone}
    plan = Plan()
    plan.becomes = {row.position: ("discarded", row.reason) for row in gone}
    delivered, left = [], 0
    first: set[str] = set()
    """The keys of which an earlier one was given up."""
    freed: set[str] = set()
    """Those of which it was one that blocked the others."""
    blocked: set[str] = set()
    for row in rows:
        if row.key is None:
            continue
        if row.position in given_up:
            first.add(row.key)
            if row.blocks:
                freed.add(row.key)
            continue
        if row.blocks:
            blocked.add(row.key)
        elif row.key in freed and row.key not in blocked and row.status == "parked":
            if release:
                plan.becomes[row.position] = ("retrying", row.reason)
            else:
                plan.becomes[row.position] = ("parked", HELD)
                blocked.add(row.key)
        if row.key in first:
            if row.key in blocked:
                left += 1
            else:
                delivered.append(row.position)
    under_way = tuple(row.position for row in gone if row.status == "retrying" and row.begun)
    positions = tuple(row.position for row in gone)
    plan.change = ParkedChange(positions, to_deliver=tuple(delivered), under_way=under_way, left=left)
    return plan


def seconds_between(rate: float | None) -> float | None:
    """Return how far apart the deliveries of a retry are, None when they may come as fast as can be."""
    if rate is None:
        return None
    if not SLOWEST <= rate < math.inf:
        raise InvalidArgument("rate", f"must be above 0 events a second, and a number, not {rate}")
    return 1 / rate


def _hold_first(plan: Plan, rest: Iterable[Open], keys: Collection[str | None]) -> None:
    """Let the first of these that is left of each key wait for somebody: what was before it blocks no more."""
    seen: set[str] = set()
    for row in rest:
        if row.key is not None and row.key in keys and row.key not in seen:
            seen.add(row.key)
            plan.becomes[row.position] = ("parked", _held(row.reason))


def _held(reason: str) -> str:
    return HELD if reason == BEHIND else reason


def _check(limit: int | None) -> None:
    if limit is not None and limit < 0:
        raise InvalidArgument("limit", f"{limit} is no number of events")
