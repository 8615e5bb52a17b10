"""How long a takeover took is read from the first deliveries under newer grants."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.flights.timeline import Kill, SubscriptionSample, Timeline
from examples.flights.watch import Stuck, Watch, takeovers

KILL = Kill("node-2", at=10.0, wall=1000.0, owned={"airports": 3})


def first(subscription: str, epoch: int, at: float) -> dict[str, float | str]:
    return {"subscription": subscription, "epoch": epoch, "at": at}


def test_a_takeover_ends_with_the_first_event_of_a_newer_grant():
    lines = [first("airports", 3, 900.0), first("airports", 4, 1000.9), first("airports", 4, 1000.4)]
    assert takeovers(KILL, iter(lines)) == {"airports": pytest.approx(0.4)}


def test_a_late_consumer_of_the_killed_nodes_grant_ends_no_takeover():
    assert takeovers(KILL, iter([first("airports", 3, 1000.2)])) == {}


def test_what_did_not_live_on_the_killed_node_is_not_measured():
    assert takeovers(KILL, iter([first("diversions", 9, 1000.2)])) == {}


class Scripted:
    """Shows what it was given, one look at a time."""

    def __init__(self, *looks: tuple[int, int]) -> None:
        self._looks = iter(looks)

    async def look(self) -> tuple[int, dict[str, SubscriptionSample]]:
        head, position = next(self._looks)
        return head, {"airports": SubscriptionSample(position, "running", "node-2", 3)}


async def test_a_run_that_stands_still_for_too_long_is_stuck_and_says_where(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("examples.flights.watch.PATIENCE", 0.0)
    watch = Watch(Scripted((9, 4), (9, 4)), Timeline(total=10), tmp_path)
    await watch.sample()
    with pytest.raises(Stuck, match=r"head at 9, airports at 4 \(running\)"):
        await watch.sample()


async def test_a_run_is_finished_when_all_is_appended_and_worked_through(tmp_path: Path):
    watch = Watch(Scripted((9, 9), (10, 9), (10, 10)), Timeline(total=10), tmp_path)
    finished = []
    for _ in range(3):
        await watch.sample()
        finished.append(watch.finished)
    assert finished == [False, False, True]


async def test_a_run_with_a_kill_is_not_finished_before_the_takeover_was_seen(tmp_path: Path):
    watch = Watch(Scripted((10, 10), (10, 10)), Timeline(total=10), tmp_path)
    await watch.sample()
    kill = watch.killed("node-2")
    assert kill.owned == {"airports": 3}
    assert not watch.finished
    line = f'{{"subscription": "airports", "epoch": 4, "at": {kill.wall + 0.5}}}\n'
    (tmp_path / "first-deliveries.log").write_text(line)
    await watch.sample()
    assert watch.finished
