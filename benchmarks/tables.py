"""Results as tables that can be read: medians with the lowest and the highest round, and what was wanted."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def show_case(console: Console, case: dict[str, Any]) -> None:
    """Print one case: a row for each candidate, then a line for each ratio."""
    figures = list(dict.fromkeys(name for entry in case["candidates"] for name in entry["figures"]))
    table = Table("candidate", title=case["case"], title_justify="left", title_style="bold", header_style="dim")
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    for entry in case["candidates"]:
        table.add_row(entry["candidate"], *(spread(entry["figures"].get(name)) for name in figures))
    console.print(table)
    for target in case["targets"]:
        console.print("  " + target_line(target), highlight=False)


def target_line(target: dict[str, Any]) -> str:
    """Say what a ratio is, what it should be, and whether it is."""
    ratio = target["to"] is not None
    subject = f"{target['of']} / {target['to']}" if ratio else target["of"]
    figure = "" if ratio and target["figure"] == "events/s" else f" {target['figure']}"
    line = f"{subject}{figure}: {number(target['median'])} ({number(target['min'])} to {number(target['max'])})"
    if target["met"] is None:
        return line
    wanted = f"≥ {target['at_least']:g}" if target["at_least"] is not None else f"≤ {target['at_most']:g}"
    return f"{line}, wanted {wanted}: " + ("[green]met[/]" if target["met"] else "[red]not met[/]")


def show_machine(console: Console, results: dict[str, Any]) -> None:
    """Print where the figures come from."""
    machine, server = results["machine"], results["server"]
    console.print(
        f"{results['begun']}, commit {machine['commit']}: {machine['cores']} cores ({machine['processor']}), "
        f"{machine['memory_gib']} GiB, {machine['system']} {machine['kernel']}, Python {machine['python']}, "
        f"PostgreSQL {server['server_version']} (fsync {server['fsync']}, synchronous_commit "
        f"{server['synchronous_commit']}, shared_buffers {server['shared_buffers']}), 8 kB durable in "
        f"{machine['sync_8kb_us']['median']:.0f} µs, {results['rounds']} rounds, medians (lowest to highest)",
        highlight=False,
    )


def spread(figure: dict[str, float] | None) -> str:
    """Write a figure with its spread."""
    if figure is None:
        return ""
    return f"{number(figure['median'])} ({number(figure['min'])} to {number(figure['max'])})"


def number(value: float) -> str:
    """Write a number with as many digits as mean something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
