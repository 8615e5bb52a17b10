"""A PNG for each question: a row of points for each figure, with the spread of the rounds.

Points, not bars: the scale is logarithmic, and the foot of a bar would stand nowhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.measure import P50, P99, RATE

PANELS: Final = {
    RATE: "events a second\n(higher is better)",
    P50: "half of the calls take at most, ms\n(lower is better)",
    P99: "99 % of the calls take at most, ms\n(lower is better)",
}
WIDTH: Final = 0.6
"""How much of a case's room its points take."""
MARKERS: Final = "osD^vPX*"


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw every question that has something to draw; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for question in results["questions"]:
        panels = [name for name in PANELS if _has(question, name)]
        if panels:
            paths.append(folder / f"{question['question']}.png")
            _draw(results, question, panels, paths[-1])
    return paths


def _has(question: dict[str, Any], figure: str) -> bool:
    return any(figure in entry["figures"] for case in question["cases"] for entry in case["candidates"])


def _draw(results: dict[str, Any], question: dict[str, Any], panels: list[str], path: Path) -> None:
    cases = question["cases"]
    names = list(dict.fromkeys(entry["candidate"] for case in cases for entry in case["candidates"]))
    figure = Figure(figsize=(max(8.0, 0.9 * len(cases) + 3.5), 3.0 * len(panels) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    machine, server = results["machine"], results["server"]
    quick = "A QUICK RUN: THE FIGURES MEAN NOTHING\n" if results["quick"] else ""
    figure.suptitle(
        f"{quick}{question['title']}\n{machine['cores']} cores ({machine['processor']}), PostgreSQL "
        f"{server['server_version']}, commit {machine['commit']}, {results['begun'][:10]}\n"
        f"median, lowest and highest of {results['rounds']} rounds; logarithmic scale",
        fontsize=9,
    )
    rows = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for axes, panel in zip(rows, panels, strict=True):
        for place, name in enumerate(names):
            _points(axes, cases, name, panel, (place + 0.5) / len(names) - 0.5, MARKERS[place % len(MARKERS)])
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        low, high = axes.get_ylim()
        if high / low < 20:  # within one decade and a bit, powers of ten alone would leave nothing to read off
            axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:,.3g}"))
            axes.tick_params(axis="y", which="minor", labelsize=7)
        axes.set_ylabel(PANELS[panel], fontsize=8)
        axes.grid(axis="y", which="both", alpha=0.25)
        for between in range(1, len(cases)):
            axes.axvline(between - 0.5, color="grey", alpha=0.2, linewidth=0.8)
    rows[-1].set_xticks(range(len(cases)), [case["case"] for case in cases], rotation=35, ha="right", fontsize=8)
    rows[-1].set_xlim(-0.5, len(cases) - 0.5)
    handles, labels = rows[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(names), 4), fontsize=8)
    figure.savefig(path, dpi=110)


def _points(axes: Axes, cases: list[dict[str, Any]], name: str, panel: str, aside: float, marker: str) -> None:
    found = [
        (number, entry["figures"][panel])
        for number, case in enumerate(cases)
        for entry in case["candidates"]
        if entry["candidate"] == name and panel in entry["figures"]
    ]
    axes.errorbar(
        [number + aside * WIDTH for number, _ in found],
        [spread["median"] for _, spread in found],
        yerr=[
            [spread["median"] - spread["min"] for _, spread in found],
            [spread["max"] - spread["median"] for _, spread in found],
        ],
        fmt=marker,
        markersize=5,
        label=name,
        capsize=3,
        linewidth=1,
    )
