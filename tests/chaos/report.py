"""The table of a run, and the same as JSON."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.campaign import Kind, Outcome

COLUMNS = ("fault", "on", "times", "p50", "p99", "max", "wanted", "redelivered", "lost", "out of order", "stale writes")


@dataclass(slots=True)
class Part:
    """What came of one world."""

    world: str
    outcomes: list[Outcome]
    events: int = 0
    handled: int = 0
    redelivered: list[tuple[float, tuple[str, int], int]] = field(default_factory=list)
    """When, in which partition, and how many events of a delivery."""
    late: int = 0
    """Deliveries noted by a former owner's handler that had begun before it was frozen."""
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
        found += [f"stale write accepted: {what} {details}" for what, details in self.stale[:10]]
        return [f"{self.world}: {each}" for each in found]


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
        redelivered, disordered, lost = _redelivered(part), _disordered(part), _lost(part)
        for name in (name for name in wanted if name in by_kind):
            times = [outcome.takeover for outcome in by_kind[name]]
            found.append(
                {
                    "fault": name,
                    "on": part.world,
                    "times": len(times),
                    "p50": percentile(times, 0.5),
                    "p99": percentile(times, 0.99),
                    "max": max(times),
                    "wanted": wanted[name],
                    "redelivered": redelivered[name],
                    "lost": lost[name],
                    "out of order": disordered[name],
                    "stale writes": sum(outcome.stale for outcome in by_kind[name]),
                }
            )
    return found


def _redelivered(part: Part) -> Counter[str]:
    """Count what was delivered again by the fault before it, when it was in a partition that the fault concerned."""
    begins, found = [outcome.begun for outcome in part.outcomes], Counter[str]()
    for when, owned, number in part.redelivered:
        at = bisect_right(begins, when) - 1
        if at >= 0 and owned in part.outcomes[at].concerned:
            found[part.outcomes[at].kind] += number
    return found


def _disordered(part: Part) -> Counter[str]:
    begins = [outcome.begun for outcome in part.outcomes]
    times = [when for when, _, _ in part.out_of_order] if part.outcomes else []
    return Counter(part.outcomes[max(0, bisect_right(begins, when) - 1)].kind for when in times)


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
