"""Planted defects, those of the seed among them: each must be caught by the invariants of the simulator.

Each is switched on for the length of a test, by replacing one method of the real code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from headwater.storage import parking
from headwater.storage.leases import Grant, Halt, ParkedEvent, Progress, RetryBegun
from headwater.storage.memory.subscriptions import MemoryCheckpoints, MemoryCoordination, MemoryParking
from headwater.subscriptions.core.batch import Batch
from headwater.subscriptions.core.lanes import Lanes, Places
from headwater.subscriptions.core.machine import Machine
from headwater.subscriptions.core.reading import Reading
from headwater.subscriptions.core.saving import Saving
from headwater.subscriptions.core.work import Work


def timer_makes_live(patch: pytest.MonkeyPatch) -> None:
    """L1: the checkpoint timer ends catching up, and what is announced next looks contiguous."""
    plan = Machine._plan_save

    def plan_save(self: Machine, now: float) -> None:
        before = self._ledger.saving
        plan(self, now)
        if self._ledger.saving is not before and self.catching_up:
            self._work.window.read_to = self._reading.head

    patch.setattr(Machine, "_plan_save", plan_save)


def checkpoints_move_freely(patch: pytest.MonkeyPatch) -> None:
    """L3: whoever saves a checkpoint sets it, owner or not, forward or back."""

    async def save(self: MemoryCheckpoints, grant: Grant, progress: Progress, **_: Any) -> None:
        self._coordination.row(grant.key).progress = replace(progress, delivered=0, redelivered=0)

    patch.setattr(MemoryCheckpoints, "save", save)


def only_the_last_key_is_busy(patch: pytest.MonkeyPatch) -> None:
    """L4: of the keys in flight with a consumer only the last is remembered."""
    take = Lanes.take

    def take_and_forget(self: Lanes, limit: int) -> tuple[Places, tuple[str, ...]]:
        places, keys = take(self, limit)
        self.release(keys[:-1])
        return places, keys[-1:]

    patch.setattr(Lanes, "take", take_and_forget)


def only_hints_wake(patch: pytest.MonkeyPatch) -> None:
    """L5: nobody looks unless somebody announces something."""
    due_at = Reading.due_at

    def never_polls(self: Reading, now: float) -> float:
        return due_at(self, now) if self.wanted else float("inf")

    patch.setattr(Reading, "due_at", never_polls)


def acks_name_no_attempt(patch: pytest.MonkeyPatch) -> None:
    """L18: a late answer to an earlier attempt counts for the one that is in flight."""
    answered = Machine._answered
    places_of: dict[tuple[int, int], int] = {}

    def by_event(self: Machine, delivery_id: int, now: float, **options: Any) -> Batch | None:
        for number, (batch, _) in self._work.in_flight.items():
            places_of[id(self), number] = batch.places[0]
        place = places_of.get((id(self), delivery_id))
        same = [n for n, (batch, _) in self._work.in_flight.items() if batch.places[0] == place]
        return answered(self, same[0] if same else delivery_id, now, **options)

    patch.setattr(Machine, "_answered", by_event)


def nobody_is_fenced(patch: pytest.MonkeyPatch) -> None:
    """A dropped fence: writes of an older epoch are taken like those of the owner."""
    patch.setattr(MemoryCoordination, "fenced", lambda self, grant: self.row(grant.key))


def late_writes_count(patch: pytest.MonkeyPatch) -> None:
    """What was sent before a rewind, and comes after it under the same epoch, is taken like what was sent after it."""
    patch.setattr(MemoryCoordination, "writable", MemoryCoordination.fenced)


def _taken_late(patch: pytest.MonkeyPatch, kind: str) -> None:
    overtaken = MemoryCoordination.overtaken

    def never_of_this_kind(self: MemoryCoordination, grant: Grant, of: str) -> bool:
        return of != kind and overtaken(self, grant, of)

    patch.setattr(MemoryCoordination, "overtaken", never_of_this_kind)


def late_saves_count(patch: pytest.MonkeyPatch) -> None:
    """A save that was given up, and comes after the next one, is taken where the checkpoint is the same."""
    _taken_late(patch, "save")


def late_parks_count(patch: pytest.MonkeyPatch) -> None:
    """What is to be parked is parked once more by a write that was given up, though it is settled since."""
    _taken_late(patch, "park")


def attempts_are_not_counted_first(patch: pytest.MonkeyPatch) -> None:
    """Deliveries do not wait until the durable progress says that they may be made."""
    patch.setattr(Saving, "cleared", lambda self, batch: True)


def parked_at_once(patch: pytest.MonkeyPatch) -> None:
    """An event counts as settled when it is to be parked, not when it is durably parked."""
    begin = Work.begin_parking

    def begin_parking(self: Work) -> tuple[int, list[ParkedEvent]]:
        token, parked = begin(self)
        self.window.settle([place for place, _ in self._being_parked])
        self._being_parked = []
        return token, parked

    patch.setattr(Work, "begin_parking", begin_parking)


def keys_freed_too_soon(patch: pytest.MonkeyPatch) -> None:
    """A key is free when nothing of it is parked, though something is about to be."""
    patch.setattr(Work, "keys_being_parked", lambda self: set())


def retries_are_not_counted_first(patch: pytest.MonkeyPatch) -> None:
    """A parked event that ends its owner's process is handed to the next one, without end."""

    async def begin_retry(self: MemoryParking, grant: Grant, position: int) -> RetryBegun | None:
        return RetryBegun(None)

    patch.setattr(MemoryParking, "begin_retry", begin_retry)


def what_is_beyond_a_limit_follows(patch: pytest.MonkeyPatch) -> None:
    """What waited behind the last event of a retry is handed out by itself, whatever was asked for."""
    patch.setattr(parking, "_hold_first", lambda plan, rest, keys: None)


def what_is_given_up_is_begun(patch: pytest.MonkeyPatch) -> None:
    """A parked event that was found before it was discarded is handed out all the same."""
    begin = MemoryParking.begin_retry

    async def begin_retry(self: MemoryParking, grant: Grant, position: int) -> RetryBegun | None:
        begun = await begin(self, grant, position)
        return RetryBegun(None) if position not in self._coordination.row(grant.key).parked else begun

    patch.setattr(MemoryParking, "begin_retry", begin_retry)


def a_rate_is_no_bound(patch: pytest.MonkeyPatch) -> None:
    """The turns of a retry with a rate are not kept."""
    patch.setattr(parking, "seconds_between", lambda rate: None)


def nothing_is_taken_back(patch: pytest.MonkeyPatch) -> None:
    """An at-most-once checkpoint that has passed what nobody took stays there."""

    async def take_back(self: MemoryCheckpoints, grant: Grant, progress: Progress) -> None:
        self._coordination.fenced(grant)

    patch.setattr(MemoryCheckpoints, "take_back", take_back)


def a_stop_ends_with_its_owner(patch: pytest.MonkeyPatch) -> None:
    """The next owner runs the handler again, though no operator has resumed it."""

    async def halted(self: MemoryCheckpoints, grant: Grant) -> Halt | None:
        return None

    patch.setattr(MemoryCheckpoints, "halted", halted)


MUTANTS: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    timer_makes_live,
    checkpoints_move_freely,
    only_the_last_key_is_busy,
    only_hints_wake,
    acks_name_no_attempt,
    nobody_is_fenced,
    late_writes_count,
    late_saves_count,
    late_parks_count,
    attempts_are_not_counted_first,
    parked_at_once,
    keys_freed_too_soon,
    retries_are_not_counted_first,
    what_is_beyond_a_limit_follows,
    what_is_given_up_is_begun,
    a_rate_is_no_bound,
    nothing_is_taken_back,
    a_stop_ends_with_its_owner,
)
