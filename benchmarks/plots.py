"""A PNG for each question: a group of bars for each case, with the spread of the rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.measure import P99, RATE

BAR = 0.8
"""How much of a case's room its bars take."""


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw every question that has something to draw; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for question in results["questions"]:
        panels = [name for name in (RATE, P99) if _has(question, name)]
        if panels:
            paths.append(folder / f"{question['question']}.png")
            _draw(results, question, panels, paths[-1])
    return paths


def _has(question: dict[str, Any], figure: str) -> bool:
    return any(figure in entry["figures"] for case in question["cases"] for entry in case["candidates"])


def _draw(results: dict[str, Any], question: dict[str, Any], panels: list[str], path: Path) -> None:
    cases = question["cases"]
    names = list(dict.fromkeys(entry["candidate"] for case in cases for entry in case["candidates"]))
    figure = Figure(figsize=(max(7.0, 1.1 * len(cases) + 3), 3.4 * len(panels) + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    machine, server = results["machine"], results["server"]
    figure.suptitle(
        f"{question['title']}\n{machine['cores']} cores, PostgreSQL {server['server_version']}, "
        f"{results['begun'][:10]}",
        fontsize=10,
    )
    for axes, panel in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        width = BAR / len(names)
        for place, name in enumerate(names):
            found = [
                (number, entry["figures"][panel])
                for number, case in enumerate(cases)
                for entry in case["candidates"]
                if entry["candidate"] == name and panel in entry["figures"]
            ]
            axes.bar(
                [number - BAR / 2 + (place + 0.5) * width for number, _ in found],
                [spread["median"] for _, spread in found],
                width,
                yerr=[
                    [spread["median"] - spread["min"] for _, spread in found],
                    [spread["max"] - spread["median"] for _, spread in found],
                ],
                label=name,
                capsize=2,
            )
        axes.set_yscale("log")
        axes.set_ylabel(panel)
        axes.set_xticks(range(len(cases)), [case["case"] for case in cases], rotation=35, ha="right", fontsize=8)
        axes.grid(axis="y", alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
