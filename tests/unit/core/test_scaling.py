"""As many consumers as the load wants: more soon, fewer late, and never to and fro."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headwater.subscriptions.core import effects, inputs
from headwater.subscriptions.core.scaling import GROW_AFTER, Scaling

from .steering import Steering, streams

LOOK = 0.25


class Load:
    """A load that would keep so many consumers at work, seen every so often."""

    def __init__(self, least: int = 1, most: int = 8, idle_after: float = 10.0) -> None:
        self.now = 0.0
        self.worked = 0.0
        self.consumers = least
        self.scaling = Scaling(least, most, idle_after=idle_after, now=self.now)
        self.seen = [least]

    def lasts(self, seconds: float, hands: float) -> int:
        for _ in range(int(seconds / LOOK)):
            self.now += LOOK
            self.worked += LOOK * min(self.consumers, hands)
            wanted = self.scaling.wanted(self.consumers, self.worked, hands > self.consumers, self.now)
            if wanted != self.consumers:
                self.seen.append(wanted)
            self.consumers = wanted
        return self.consumers


def test_more_come_while_all_are_busy_and_events_wait() -> None:
    load = Load()
    assert load.lasts(20, hands=100) == 8
    assert load.seen == [1, 2, 3, 5, 8]


def test_busy_for_a_moment_only_changes_nothing() -> None:
    load = Load()
    for _ in range(10):
        load.lasts(GROW_AFTER / 2, hands=100)
        load.lasts(GROW_AFTER, hands=0.5)
    assert load.seen == [1]


def test_those_who_have_nothing_to_do_are_given_up_late_and_one_by_one() -> None:
    load = Load(least=2)
    load.lasts(20, hands=100)
    assert load.lasts(9, hands=0) == 8
    assert load.lasts(100, hands=0) == 2
    assert load.seen[-6:] == [7, 6, 5, 4, 3, 2]


def test_busy_consumers_for_whom_nothing_waits_are_enough() -> None:
    assert Load().lasts(60, hands=1.0) == 1


@given(st.floats(0, 10), st.integers(1, 4), st.integers(0, 6))
def test_a_load_that_stays_brings_the_number_to_rest(hands: float, least: int, more: int) -> None:
    load = Load(least, least + more)
    load.lasts(200, hands)
    rested = load.consumers
    load.lasts(400, hands)
    assert load.consumers == rested
    assert least <= rested <= least + more
    assert rested == least + more or rested > hands * 0.9 or rested >= hands


def test_one_that_retires_finishes_what_it_has_and_its_key_waits_for_that() -> None:
    it = Steering(streams("a", "b", "a", "b", "a"), consumers=2)
    assert it.in_hand == {0: [1], 1: [2]}
    it.tell(inputs.Retired(0))
    it.handle(2)
    it.handle(3)
    assert it.in_hand == {0: [1]}, "nobody else gets the key that the retiring one still has"
    assert it.machine.holds(0)
    it.handle(1)
    assert not it.machine.holds(0)
    it.handle_all()
    assert [deliver.consumer for deliver in it.all(effects.Deliver)] == [0, 1, 1, 1, 1]


def test_one_that_was_to_retire_may_stay() -> None:
    it = Steering(streams("a", "b", "c", "d"), consumers=2)
    it.tell(inputs.Retired(0))
    it.tell(inputs.Joined(0))
    it.handle_all()
    assert {deliver.consumer for deliver in it.all(effects.Deliver)[2:]} == {0, 1}


def test_how_long_consumers_worked_is_counted() -> None:
    it = Steering(streams("a", "b"), consumers=2)
    it.later(2)
    it.handle(1)
    it.later(3)
    assert it.machine.worked(it.now) == 2 + 5
    assert not it.machine.waiting
