"""What one sees while it runs: a live table on a terminal, plain lines anywhere else.

Shows only; decides nothing.
"""

from __future__ import annotations

import sys
import time
from typing import Protocol, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from examples.flights.timeline import Timeline

PLAIN_EVERY = 2.0
"""Seconds between two lines where there is no terminal."""
WIDEST = 104
FRAMES = 8
"""Pictures a second on a terminal."""


class View(Protocol):
    """A way to show a run."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def say(self, text: str) -> None:
        """Say something that stays on the screen."""
        ...

    def show(self, timeline: Timeline, nodes: tuple[str, ...]) -> None:
        """Show how the run stands; ``nodes`` are those alive."""
        ...


def choose_view(*, out: TextIO) -> View:
    """Return the view that suits the output."""
    console = Console(file=out, highlight=False)
    return LiveView(console) if console.is_terminal and not console.is_dumb_terminal else PlainView(out)


def clock(seconds: float) -> str:
    """Write a time since the start: ``1:07``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


class PlainView:
    """Lines: what is said at once, and how the run stands every now and then."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def say(self, text: str) -> None:
        """Write a line."""
        print(text, file=self._out, flush=True)

    def show(self, timeline: Timeline, nodes: tuple[str, ...]) -> None:  # noqa: ARG002 - who owns what is in the report
        """Write a line when it is time for one."""
        sample = timeline.last
        if sample is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PLAIN_EVERY
        rate = timeline.rates().get("", 0.0)
        lags = ", ".join(f"{name} {sample.lag(name):,}" for name in sample.subscriptions)
        self.say(f"{clock(sample.at)}  {sample.head:,} of {timeline.total:,} events, {rate:,.0f}/s; behind: {lags}")


class LiveView:
    """A table that is drawn anew several times a second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=FRAMES, redirect_stderr=False, redirect_stdout=False)
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._live.stop()

    def say(self, text: str) -> None:
        """Write a line above the table."""
        self._console.print(Text(text), soft_wrap=True)

    def show(self, timeline: Timeline, nodes: tuple[str, ...]) -> None:
        """Draw the table."""
        if not self._shown:
            self._shown = True
            self._live.start()
        self._live.update(picture(timeline, nodes, min(self._console.width, WIDEST)))


def picture(timeline: Timeline, nodes: tuple[str, ...], width: int) -> RenderableType:
    """Draw how a run stands."""
    sample = timeline.last
    if sample is None:
        return Text("no event yet", style="dim")
    rates = timeline.rates()
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim", width=width)
    table.add_column("", no_wrap=True)
    table.add_column("", ratio=1, no_wrap=True)
    for title in ("position", "events/s", "lag"):
        # As wide as the widest number, so that nothing moves sideways.
        table.add_column(title, justify="right", min_width=len(f"{timeline.total:,}"), no_wrap=True)
    for title in ("phase", "owner"):
        table.add_column(title, no_wrap=True)
    table.add_row(
        Text("appended", style="bold"),
        _bar(sample.head, timeline.total, "cyan"),
        f"{sample.head:,}",
        f"{rates.get('', 0):,.0f}",
    )
    for name, there in sample.subscriptions.items():
        lag = sample.lag(name)
        table.add_row(
            name,
            _bar(there.position, timeline.total, "green"),
            f"{there.position:,}",
            f"{rates.get(name, 0):,.0f}",
            Text(f"{lag:,}", style="yellow" if lag > timeline.total / 20 else ""),
            Text(there.phase, style="dim"),
            Text(there.node, style="bold") if there.node in nodes else Text("nobody", style="bold red"),
        )
    return Group(Text(), table, Text(), _nodes(timeline, nodes))


def _bar(done: int, total: int, color: str) -> ProgressBar:
    return ProgressBar(total=total, completed=done, complete_style=color, finished_style=color)


def _nodes(timeline: Timeline, nodes: tuple[str, ...]) -> Text:
    sample, kill = timeline.last, timeline.kill
    assert sample is not None
    line = Text(f"{clock(sample.at)}  ", style="dim")
    known = sorted({*nodes, *([kill.node] if kill else [])})
    for name in known:
        if kill is not None and name == kill.node:
            line.append(f"✖ {name} killed at {clock(kill.at)}", style="bold red")
        else:
            owned = sum(there.node == name for there in sample.subscriptions.values())
            line.append("● ", style="green")
            line.append(f"{name} owns {owned}", style="default")
        line.append("   ")
    return line
