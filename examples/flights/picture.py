"""The picture of a run: throughput and lag over time, with the kill marked.

Draws from samples only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from examples.flights.timeline import Sample, Timeline

SMOOTHED: Final = 1.5
"""Seconds over which a rate is taken, at the least; in a long run more, ..."""
STEPS: Final = 60
"""... so that its length is so many times this."""
COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Told apart by colour-blind eyes too (Okabe and Ito)."""
INK, PALE, ALARM = "#222222", "#8a8a8a", "#b00020"


def draw(timeline: Timeline, title: str, path: Path) -> None:
    """Write the picture as a PNG."""
    samples = timeline.samples
    names = list(samples[-1].subscriptions)
    figure = Figure(figsize=(11, 7), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold", color=INK)
    times = [sample.at for sample in samples]

    appended = _rates(samples, lambda sample: sample.head)
    top.fill_between(times, appended, color="#d9dee3", linewidth=0, label="appended")
    for name, color in zip(names, COLORS, strict=False):
        rates = _rates(samples, lambda sample, name=name: sample.subscriptions[name].position)  # type: ignore[misc]
        top.plot(times, rates, color=color, linewidth=1.6, label=name)
        bottom.plot(times, [sample.lag(name) for sample in samples], color=color, linewidth=1.6)
    top.set_ylabel("events a second,\nappended and worked through")
    bottom.set_ylabel("lag: events behind the head")
    bottom.set_xlim(left=0)
    bottom.set_xlabel("seconds since the first event")
    for axes in (top, bottom):
        _plain(axes)
    # Room for the words about the kill.
    top.set_ylim(top=top.get_ylim()[1] * 1.12)
    _mark_kill(timeline, top, bottom)
    top.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(names) + 1, frameon=False, fontsize=10)
    figure.savefig(path, dpi=120)


def _rates(samples: list[Sample], count: Callable[[Sample], int]) -> list[float]:
    """Return the rate at each sample, over the seconds before it."""
    rates, first = [], 0
    smoothed = max(SMOOTHED, samples[-1].at / STEPS)
    for sample in samples:
        while sample.at - samples[first].at > smoothed:
            first += 1
        seconds = sample.at - samples[first].at
        rates.append((count(sample) - count(samples[first])) / seconds if seconds > 0 else 0.0)
    return rates


def _mark_kill(timeline: Timeline, top: Any, bottom: Any) -> None:
    kill = timeline.kill
    if kill is None:
        return
    for axes in (top, bottom):
        axes.axvline(kill.at, color=ALARM, linewidth=1.2, linestyle=(0, (4, 3)))
        if timeline.takeovers:
            axes.axvspan(kill.at, kill.at + max(timeline.takeovers.values()), color=ALARM, alpha=0.12, linewidth=0)
    after = f", delivery went on after {max(timeline.takeovers.values()):.2f} s" if timeline.takeovers else ""
    late = timeline.samples[-1].at - kill.at < timeline.samples[-1].at / 3
    top.annotate(
        f"{kill.node} killed{after}",
        (kill.at, 0.97),
        xycoords=("data", "axes fraction"),
        xytext=(-6 if late else 6, 0),
        textcoords="offset points",
        ha="right" if late else "left",
        va="top",
        color=ALARM,
        fontsize=10,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
    )


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(colors=INK)
    axes.grid(axis="y", color="#e8e8e8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
