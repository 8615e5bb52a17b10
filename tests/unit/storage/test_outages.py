"""Pauses between tries: a part of the time that the outage has lasted, and never very long."""

from __future__ import annotations

from itertools import islice

import pytest

from headwater.storage.outages import FIRST, MOST, SHARE, pauses
from headwater.subscriptions.testing.clock import VirtualClock


@pytest.mark.parametrize("lasted", [0.0, 0.3, 2.0, 8.0, 3600.0])
def test_a_pause_adds_a_small_part_to_an_outage_and_never_more_than_a_second(lasted: float) -> None:
    clock = VirtualClock(100)
    tries = pauses(clock.monotonic, lambda: 0.0)
    next(tries)
    clock.advance(lasted)
    assert next(tries) == pytest.approx(min(MOST, max(FIRST, SHARE * lasted)))


def test_processes_do_not_come_together() -> None:
    chances = iter([0.0, 0.5, 0.999])
    assert list(islice(pauses(lambda: 0.0, lambda: next(chances)), 3)) == [
        pytest.approx(FIRST),
        pytest.approx(0.75 * FIRST),
        pytest.approx(0.5005 * FIRST),
    ]
