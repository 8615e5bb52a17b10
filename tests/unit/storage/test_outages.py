"""Pauses between tries: a part of the time that the outage has lasted, and never very long."""

from __future__ import annotations

import logging
from itertools import islice

import pytest

from headwater.storage.outages import FIRST, MOST, SHARE, Outage, pauses
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


def test_an_outage_is_told_once_and_its_end_once_however_many_wait(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock(100)
    outage = Outage(logging.getLogger("a test"), "it waits", "it goes on", now=clock.monotonic)
    outage.ends("claims")
    for _ in range(3):
        for who in ("claims", "assignments"):
            outage.goes_on(ValueError("refused\n\tIs it running?"), who)
        clock.advance(20)
    outage.ends("claims")
    assert caplog.messages == ["it waits: refused Is it running?"]
    outage.ends("assignments")
    assert caplog.messages[1:] == ["it goes on, after 60.0 s"]
    outage.goes_on(TimeoutError())
    assert caplog.messages[2:] == ["it waits: TimeoutError"]
