"""The course of a run, on a store and a cluster that are made up."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest

from examples.flights import traces
from examples.flights.events import in_order
from examples.flights.feed import STEP
from examples.flights.flight import parse
from examples.flights.options import Options
from examples.flights.run import Demo, Stopwatch
from examples.flights.servers import Servers
from examples.flights.source import rows
from examples.flights.timeline import SubscriptionSample, Timeline
from examples.flights.view import choose_view
from examples.flights.watch import Watch

FLIGHTS = 1500


class Made:
    """A store and a cluster in one, where everything is handled as soon as it is stored."""

    nodes = ("node-1", "node-2")

    def __init__(self, timeline: Timeline, out: Path) -> None:
        self._timeline = timeline
        self._out = out
        self.head = 0
        self.killed_at: int | None = None

    async def append_to_many(self, appends: Any) -> None:
        self.head += sum(len(append.events) for append in appends)

    async def look(self) -> tuple[int, dict[str, SubscriptionSample]]:
        for _ in range(1000):  # the feed gets as far as it may between two looks
            await asyncio.sleep(0)
        return self.head, {"airports": SubscriptionSample(self.head, "running", "node-1", 3)}

    async def kill_node(self, name: str) -> None:
        self.killed_at, kill = self.head, self._timeline.kill
        assert kill is not None
        line = {"subscription": "airports", "epoch": 4, "at": kill.wall + 0.1}
        (self._out / traces.FIRSTS).write_text(json.dumps(line) + "\n")


async def test_a_node_is_killed_when_half_is_stored_and_the_rest_comes_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("examples.flights.watch.INTERVAL", 0.01)
    options = Options(flights=FLIGHTS, out=tmp_path)
    total = sum(1 for _ in in_order(parse(row) for row in rows(FLIGHTS, options.seed)))
    timeline = Timeline(total)
    made: Any = Made(timeline, tmp_path)
    with choose_view(out=io.StringIO()) as view:
        demo = Demo(options, Servers("", "", "Made-up servers"), view, Stopwatch())
        await demo._feed_and_watch(made, made, Watch(made, timeline, tmp_path), timeline)
    assert total / 2 <= made.killed_at < total / 2 + STEP
    assert made.head == total
    assert timeline.takeovers.keys() == {"airports"}
