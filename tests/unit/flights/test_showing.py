"""The report, the picture and the views, from made-up runs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from examples.flights.compare import compare_figures
from examples.flights.options import Options
from examples.flights.picture import draw
from examples.flights.report import Report
from examples.flights.timeline import Kill, Sample, SubscriptionSample, Timeline
from examples.flights.view import PlainView, choose_view, picture


def run(*, kill: bool = True) -> Timeline:
    timeline = Timeline(total=100)
    for second in range(11):
        dead = kill and second == 5
        there = SubscriptionSample(second * 10, "running", None if dead else "node-1", 1, delivered=second * 10)
        timeline.samples.append(Sample(float(second), min(100, second * 12), {"totals": there}))
    if kill:
        timeline.kill = Kill("node-2", 5.0, 1000.0, {"totals": 1})
        timeline.takeovers = {"totals": 0.5}
    return timeline


def report(timeline: Timeline, counted: int = 100, **options) -> Report:
    return Report(
        options=Options(**options),
        timeline=timeline,
        events={"FlightScheduled": 100},
        comparisons=[compare_figures("totals", "exactly once", {"a": {"x": 100}}, {"a": {"x": counted}})],
        seconds={"feed": 10.0, "total": 12.0},
        servers="embedded",
    )


def text(renderable: RenderableType, width: int = 100) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(renderable)
    return out.getvalue()


def test_a_good_run_has_no_problem_and_says_so():
    good = report(run())
    assert good.problems == []
    assert good.as_json()["ok"] is True
    assert "0 events lost, 0 repeated" in text(good.as_words())
    assert "node-2 was killed" in text(good.as_words())


def test_a_lost_event_is_a_problem_that_is_named():
    bad = report(run(), counted=99)
    assert bad.as_json()["ok"] is False
    assert bad.as_json()["lost"] == 1
    assert "a: x is 99, must be 100" in text(bad.as_words())


def test_a_subscription_that_nobody_took_over_is_a_problem():
    timeline = run()
    timeline.takeovers = {}
    assert report(timeline).problems == ["totals was not taken over"]


def test_a_run_in_which_no_node_was_killed_is_a_problem_unless_that_was_asked_for():
    assert report(run(kill=False)).problems == ["no node was killed"]
    assert report(run(kill=False), kill=False).problems == []


def test_the_report_for_programs_is_json_and_holds_no_address_of_a_server():
    written = json.dumps(report(run(), database_url="postgresql://me:secret@localhost/db").as_json())
    assert "secret" not in written


@pytest.mark.parametrize("kill", [True, False])
def test_the_picture_is_a_png(tmp_path: Path, kill: bool):
    draw(run(kill=kill), "a run", tmp_path / "timeline.png")
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")


def test_the_terminal_shows_every_subscription_and_the_killed_node_in_80_columns():
    shown = text(picture(run(), ("node-1", "node-3"), 80), width=80)
    assert "node-2 killed at 0:05" in shown
    assert any("totals" in line and "running" in line and "node-1" in line for line in shown.splitlines())
    assert max(map(len, shown.splitlines())) <= 80


def test_without_a_terminal_there_are_plain_lines():
    out = io.StringIO()
    with choose_view(out=out) as view:
        assert isinstance(view, PlainView)
        view.say("hello")
        view.show(run(), ("node-1",))
    assert out.getvalue().splitlines()[0] == "hello"
    assert "100 of 100 events" in out.getvalue()
    assert "\x1b" not in out.getvalue()
