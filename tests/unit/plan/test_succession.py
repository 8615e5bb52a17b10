"""Which step of a replacement is due, whatever has happened to the owners."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headwater.cluster.succession import CLOSE, REST, next_step
from headwater.storage.postgres.replacing import ReplacementPhase, Step, VersionRow, Versions

ROW = VersionRow(
    1, "v", "$all", "running", b"{}", 0, 1, 5000, 5000, None, closed=False, phase="running", owned=True, head=6000
)


def versions(phase: ReplacementPhase, *pairs: tuple[VersionRow, VersionRow], seconds: float = REST) -> Versions:
    return Versions(phase, seconds, pairs)


@pytest.mark.parametrize(
    ("behind", "seconds", "step"), [(CLOSE, REST, "stop old"), (CLOSE + 1, REST, None), (0, REST / 2, None)]
)
def test_the_old_version_is_stopped_once_the_new_one_has_nearly_caught_up(
    behind: int, seconds: float, step: Step | None
) -> None:
    new = replace(ROW, lock_id=2, checkpoint=5000 - behind)
    assert next_step(versions("catching up", (ROW, new), seconds=seconds)) == step


def test_an_old_version_that_had_to_go_on_settles_first_what_the_dead_owner_had_begun() -> None:
    resumed = replace(versions("catching up", (ROW, ROW)), must_reach=5001)
    assert next_step(resumed) is None
    assert next_step(replace(resumed, must_reach=5000)) == "stop old"


def test_the_slowest_partition_counts() -> None:
    pairs = [(replace(ROW, lock_id=n), replace(ROW, lock_id=10 + n, checkpoint=5000 - n * 900)) for n in range(3)]
    assert next_step(versions("catching up", *pairs)) is None
    assert next_step(versions("catching up", *pairs[:2])) == "stop old"


def test_an_old_version_whose_owner_died_is_not_stopped_before_the_next_owner_is_there() -> None:
    died = replace(ROW, owned=False, in_flight_to=9000)
    assert next_step(versions("catching up", (died, ROW))) is None
    assert next_step(versions("catching up", (replace(died, owned=True), ROW))) == "stop old"


def test_a_new_version_takes_over_only_from_one_that_has_ended_cleanly() -> None:
    ended = replace(ROW, owned=False)
    assert next_step(versions("taking over", (ROW, ROW))) is None
    assert next_step(versions("taking over", (ended, ROW), (replace(ROW, lock_id=3), ROW))) is None
    assert next_step(versions("taking over", (ended, ROW))) == "take over"


def test_an_old_version_whose_owner_died_while_it_was_drained_is_resumed() -> None:
    died = replace(ROW, owned=False, in_flight_to=5003)
    assert next_step(versions("taking over", (died, ROW))) == "resume old"


@pytest.mark.parametrize(
    "new",
    [replace(ROW, phase="stuck"), replace(ROW, phase="new"), replace(ROW, phase="paused"), replace(ROW, owned=False)],
)
def test_a_new_version_that_does_not_run_takes_nothing_over(new: VersionRow) -> None:
    ended = replace(ROW, owned=False)
    assert next_step(versions("catching up", (ROW, new))) is None
    assert next_step(versions("taking over", (ROW, new))) is None
    assert next_step(versions("taking over", (ended, new))) == "resume old"
