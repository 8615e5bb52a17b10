"""What happened, in words for people and in JSON for programs.

Pure, but for the facts of the machine.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from examples.flights.compare import Comparison
from examples.flights.options import Options
from examples.flights.timeline import Timeline
from examples.flights.view import clock

REPORT: Final = "report.json"
PICTURE: Final = "timeline.png"
"""What a run leaves in its output folder."""
GOAL: Final = 2.0
"""Seconds from a kill within which delivery should go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that is to be said about a run."""

    options: Options
    timeline: Timeline
    events: Mapping[str, int]
    """How many events of each type were appended."""
    comparisons: Sequence[Comparison]
    seconds: Mapping[str, float]
    """How long each part of the run took."""
    servers: str

    @property
    def problems(self) -> list[str]:
        """What is not as it must be; empty after a good run."""
        found = [
            f"{c.read_model}: {difference}" for c in self.comparisons if not c.right for difference in c.differences
        ]
        found += [
            f"{c.read_model}: {c.lost:,} lost, {c.repeated:,} repeated"
            for c in self.comparisons
            if not (c.right or c.differences)
        ]
        head = self.timeline.last.head if self.timeline.last else 0
        if head != self.timeline.total:
            found.append(f"the store holds {head:,} events, must be {self.timeline.total:,}")
        if self.options.kill:
            kill = self.timeline.kill
            missing = sorted(kill.owned.keys() - self.timeline.takeovers.keys()) if kill else []
            found += [f"{name} was not taken over" for name in missing]
            if kill is None:
                found.append("no node was killed")
        return found

    @property
    def worst_takeover(self) -> float | None:
        """The longest time from the kill to the next event handled, in seconds."""
        return max(self.timeline.takeovers.values(), default=None)

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs."""
        kill, last = self.timeline.kill, self.timeline.last
        subscriptions = last.subscriptions if last else {}
        return {
            "ok": not self.problems,
            "problems": self.problems,
            "options": {name: str(value) if name == "out" else value for name, value in self._shown_options().items()},
            "machine": {**machine(), "servers": self.servers},
            "appended": {"total": last.head if last else 0, "by_type": dict(self.events)},
            "delivered": sum(there.delivered for there in subscriptions.values()),
            "redelivered": sum(there.redelivered for there in subscriptions.values()),
            "lost": sum(comparison.lost for comparison in self.comparisons),
            "repeated": sum(comparison.repeated for comparison in self.comparisons if not comparison.repeats_allowed),
            "repeated_where_allowed": sum(c.repeated for c in self.comparisons if c.repeats_allowed),
            "kill": None
            if kill is None
            else {
                "node": kill.node,
                "at_second": round(kill.at, 3),
                "owned": sorted(kill.owned),
                "takeover_seconds": {name: round(taken, 3) for name, taken in self.timeline.takeovers.items()},
                "worst_takeover_seconds": self.worst_takeover and round(self.worst_takeover, 3),
            },
            "subscriptions": {name: asdict(there) for name, there in subscriptions.items()},
            "read_models": [{"equal": c.right, **asdict(c)} for c in self.comparisons],
            "seconds": {name: round(taken, 3) for name, taken in self.seconds.items()},
        }

    def _shown_options(self) -> dict[str, Any]:
        """The options, with no address of a server: it may hold a password."""
        return {
            name: value is not None if name.endswith("_url") else value for name, value in asdict(self.options).items()
        }

    def as_words(self) -> RenderableType:
        """Return the report for people."""
        parts: list[RenderableType] = [Text(), *map(Text, self._story()), Text(), self._table(), Text()]
        if self.problems:
            parts += [Text(f"WRONG: {problem}", style="bold red") for problem in self.problems]
        else:
            parts += [Text(line, style="bold green") for line in self._verdict()]
        parts += [Text(), *map(Text, self._end())]
        return Group(*parts)

    def _end(self) -> list[str]:
        out = self.options.out
        end = [f"{self.seconds['total']:.0f} s in all.", f"Picture: {out / PICTURE}", f"Report:  {out / REPORT}"]
        if self.options.keep:
            kept = out / "data" if self.options.database_url is None else "the schemas flights and flights_store"
            end.append(f"The data is kept in {kept}.")
        return end

    def _story(self) -> list[str]:
        fed = self.seconds["feed"]
        total = sum(self.events.values())
        types = ", ".join(f"{count:,} {type.removeprefix('Flight').lower()}" for type, count in self.events.items())
        story = [
            f"{self.options.flights:,} flights became {total:,} events:",
            f"  {types}",
            f"appended in the order in which they happened, in {fed:.0f} s: {total / fed:,.0f} a second.",
        ]
        kill = self.timeline.kill
        if kill is not None:
            story.append(
                f"At {clock(kill.at)} {kill.node} was killed with SIGKILL. It owned {_list(sorted(kill.owned))}."
            )
            last = self.timeline.last
            for name, seconds in self.timeline.takeovers.items():
                node = last.subscriptions[name].node if last else None
                story.append(f"  {name} went on after {seconds:.2f} s, on {node}")
            if self.worst_takeover is not None and self.worst_takeover > GOAL:
                story.append(f"  slower than the goal of {GOAL:.0f} s")
        return story

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
        for title in ("subscription", "delivery"):
            table.add_column(title)
        for title in ("delivered", "again", "compared", "lost", "repeated"):
            table.add_column(title, justify="right")
        last = self.timeline.last
        for comparison in self.comparisons:
            there = last.subscriptions.get(comparison.read_model) if last else None
            table.add_row(
                comparison.read_model,
                comparison.promise,
                f"{there.delivered + there.redelivered:,}" if there else "",
                f"{there.redelivered:,}" if there else "",
                f"{comparison.compared:,}",
                Text(f"{comparison.lost:,}", style="bold red" if comparison.lost else ""),
                Text(f"{comparison.repeated:,}", style="" if comparison.right else "bold red"),
            )
        return table

    def _verdict(self) -> list[str]:
        figures = sum(comparison.compared for comparison in self.comparisons)
        verdict = [
            f"All {figures:,} figures equal those computed straight from the flights.",
            "0 events lost, 0 repeated.",
        ]
        if sent_twice := sum(c.repeated for c in self.comparisons if c.repeats_allowed):
            verdict.append(f"Alerts that went out again, as at-least-once delivery allows: {sent_twice:,}.")
        if turned_away := sum(c.turned_away for c in self.comparisons):
            verdict.append(f"Events that a handler was given again, and did not count again: {turned_away:,}.")
        return verdict


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "headwater": version("headwater"),
        "ray": version("ray"),
    }


def _list(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) if names else "nothing"
