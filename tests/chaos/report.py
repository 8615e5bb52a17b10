"""The table of a run, and the same as JSON."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headwater.subscriptions.options import SubscriptionOptions
from tests.chaos.campaign import Kind, Outcome
from tests.chaos.owners import Double

COLUMNS = (
    *("fault", "on", "times", "p50", "p99", "max", "wanted", "redelivered", "at once", "lost", "out of order"),
    *("stale writes", "double owner", "late"),
)


@dataclass(slots=True)
class Part:
    """What came of one world."""

    world: str
    outcomes: list[Outcome]
    events: int = 0
    handled: int = 0
    redelivered: list[tuple[float, tuple[str, int], int, int]] = field(default_factory=list)
    """When, in which partition, under which epoch, and how many events of a delivery."""
    again: list[tuple[tuple[str, int], int, int]] = field(default_factory=list)
    """Partition, epoch, and how many events were handled again under it."""
    bounds: dict[str, int] = field(default_factory=dict)
    """By subscription: how many that may be."""
    double: list[Double] = field(default_factory=list)
    """Deliveries that began when the partition had another owner already."""
    late: list[Double] = field(default_factory=list)
    """The same where it is allowed: see ``Owners``."""
    lost: dict[str, list[int]] = field(default_factory=dict)
    out_of_order: list[tuple[float, str, int]] = field(default_factory=list)
    """When, in which subscription, and at which position."""
    stale: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def verdicts(self) -> list[str]:
        """What is wrong, in words."""
        found = list(self.problems)
        found += [f"{len(positions)} events lost by {name}: {positions[:10]}" for name, positions in self.lost.items()]
        if self.out_of_order:
            found.append(f"{len(self.out_of_order)} events out of order: {self.out_of_order[:10]}")
        if self.double:
            found.append(f"{len(self.double)} double-owner deliveries: {self.double[:10]}")
        for owned, epoch, number in self.again:
            if number > (most := self.bounds[owned[0]]):
                found.append(
                    f"{number} events handled again by {owned} under epoch {epoch}, and no more than {most} may"
                )
        for outcome, number in self._again_by_plan():
            found.append(
                f"{number} events handled again by {outcome.kind!r}, number {outcome.number}, which is planned"
            )
        found += [f"stale write accepted: {what} {details}" for what, details in self.stale[:10]]
        return [f"{self.world}: {each}" for each in found]

    def _again_by_plan(self) -> list[tuple[Outcome, int]]:
        """Return what was made in good order, and made something be handled again all the same."""
        planned = [outcome for outcome in self.outcomes if outcome.planned]
        found = [(outcome, _redelivered_by(self, outcome).total()) for outcome in planned]
        return [(outcome, number) for outcome, number in found if number]


def most_again(options: SubscriptionOptions) -> int:
    """Return how many events one takeover of a partition may make be handled again: in flight, or handled and unsaved.

    Nothing is delivered that no saved promise covers, and a promise reaches ``max_in_flight`` further than what was
    read when it was made, of which as many again may have been unsettled.
    """
    return 2 * options.max_in_flight


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that so large a share of all does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def rows(parts: Iterable[Part], kinds: Iterable[Kind]) -> list[dict[str, Any]]:
    """Return one row for each kind of fault in each world, in the order of the catalogue."""
    found = []
    wanted = {kind.name: kind.target for kind in kinds}
    for part in parts:
        by_kind: Mapping[str, list[Outcome]] = defaultdict(list)
        for outcome in part.outcomes:
            by_kind[outcome.kind].append(outcome)
        disordered, lost = _disordered(part), _lost(part)
        double, late = (_by_kind(part, [each.time for each in doubles]) for doubles in (part.double, part.late))
        for name in (name for name in wanted if name in by_kind):
            times = [outcome.takeover for outcome in by_kind[name]]
            again = [_redelivered_by(part, outcome) for outcome in by_kind[name]]
            found.append(
                {
                    "fault": name,
                    "on": part.world,
                    "times": len(times),
                    "p50": percentile(times, 0.5),
                    "p99": percentile(times, 0.99),
                    "max": max(times),
                    "wanted": wanted[name],
                    "redelivered": sum(sum(each.values()) for each in again),
                    "at once": max((number for each in again for number in each.values()), default=0),
                    "lost": lost[name],
                    "out of order": disordered[name],
                    "stale writes": sum(outcome.stale for outcome in by_kind[name]),
                    "double owner": double[name],
                    "late": late[name],
                }
            )
    return found


def _redelivered_by(part: Part, outcome: Outcome) -> Counter[tuple[tuple[str, int], int]]:
    """Count, by partition and epoch, what was delivered again after a fault and before the next, where it concerned."""
    at, found = part.outcomes.index(outcome), Counter[tuple[tuple[str, int], int]]()
    end = part.outcomes[at + 1].begun if at + 1 < len(part.outcomes) else math.inf
    for when, owned, epoch, number in part.redelivered:
        if outcome.begun <= when < end and owned in outcome.concerned:
            found[owned, epoch] += number
    return found


def _disordered(part: Part) -> Counter[str]:
    return _by_kind(part, [when for when, _, _ in part.out_of_order])


def _by_kind(part: Part, times: Iterable[float]) -> Counter[str]:
    """Count moments by the kind of the fault before them."""
    begins = [outcome.begun for outcome in part.outcomes]
    return Counter(part.outcomes[max(0, bisect_right(begins, when) - 1)].kind for when in times if begins)


def _lost(part: Part) -> Counter[str]:
    """Count what was lost by the fault that was made last before it was appended."""
    heads = [outcome.head for outcome in part.outcomes]
    positions = [position for lost in part.lost.values() for position in lost] if part.outcomes else []
    return Counter(part.outcomes[max(0, bisect_right(heads, position) - 1)].kind for position in positions)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw the table; takeovers are in seconds."""
    cells = [list(COLUMNS), *([_cell(row[column]) for column in COLUMNS] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(COLUMNS))]
    lines = []
    for line in cells:
        padded = [c.ljust(w) if at < 2 else c.rjust(w) for at, (c, w) in enumerate(zip(line, widths, strict=True))]
        lines.append("| " + " | ".join(padded) + " |")
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
