"""Two runs side by side: what became faster, what slower, and what lies within the spread of the rounds.

Figures of two runs differ by what the machine was doing; ratios to a reference of the same run differ less.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measure import P50, P99
from benchmarks.tables import number, spread

LOWER_IS_BETTER = (P50, P99, "takeover ms", "redelivered", "peak MiB")


def show(console: Console, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Print every figure, and every ratio, that both runs have."""
    for fact in ("cores", "processor", "memory_gib", "kernel", "python", "commit"):
        one, other = before["machine"].get(fact), after["machine"].get(fact)
        if one != other:
            console.print(f"[yellow]{fact}: {one} then, {other} now[/]", highlight=False)
    table = Table("case", "what", "figure", title=f"{before['begun']} → {after['begun']}")
    for name in ("then", "now", "now / then", ""):
        table.add_column(name, justify="right")
    earlier = figures(before)
    for key, now in figures(after).items():
        if key in earlier:
            table.add_row(*key, spread(earlier[key]), spread(now), *verdict(key[2], earlier[key], now))
    console.print(table)


def figures(results: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, float]]:
    """Return all figures of a run by case, candidate (or ratio) and name."""
    found = {}
    for question in results["questions"]:
        for case in question["cases"]:
            for entry in case["candidates"]:
                for name, figure in entry["figures"].items():
                    found[case["case"], entry["candidate"], name] = figure
            for target in case["targets"]:
                if target["to"] is not None:
                    found[case["case"], f"{target['of']} / {target['to']}", target["figure"]] = target
    return found


def verdict(name: str, then: dict[str, float], now: dict[str, float]) -> tuple[str, str]:
    """Return the ratio of the medians, and what it means: nothing where the two spreads overlap."""
    ratio = now["median"] / then["median"] if then["median"] else float("nan")
    if now["min"] <= then["max"] and then["min"] <= now["max"]:
        return number(ratio), "[dim]within the spread[/]"
    better = (ratio < 1) == (name in LOWER_IS_BETTER)
    return number(ratio), "[green]better[/]" if better else "[red]worse[/]"
