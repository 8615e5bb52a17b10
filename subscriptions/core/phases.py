"""The life cycle of a subscription's partition under one owner, as a literal table.

Holds nothing that can be derived: catching up, live and at capacity are questions to the window, not phases.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class Phase(enum.Enum):
    """What the partition is doing."""

    NEW = "new"
    """Nobody has been granted the lease here yet."""
    RUNNING = "running"
    """Reading and delivering."""
    STUCK = "stuck"
    """Something outside does not answer, or the stream that is read is deleted (see the reason); it is tried again, and
    delivery goes on where it can."""
    PAUSED = "paused"
    """An operator, or the breaker, has stopped delivery until it is resumed."""
    FAILED = "failed"
    """The failure policy has stopped delivery at an event until an operator resumes it."""
    DRAINING = "draining"
    """Nothing new is delivered; what is in flight ends, then the checkpoint is saved."""
    FINISHED = "finished"
    """This owner does nothing any more: drained, or the lease is lost."""


class Cause(enum.Enum):
    """What can change the phase."""

    GRANTED = enum.auto()
    TROUBLE = enum.auto()
    RELIEF = enum.auto()
    PAUSE = enum.auto()
    GIVE_UP = enum.auto()
    RESUME = enum.auto()
    DRAIN = enum.auto()
    DRAINED = enum.auto()
    LEASE_LOST = enum.auto()


TABLE: Final[Mapping[Phase, Mapping[Cause, Phase]]] = {
    Phase.NEW: {
        Cause.GRANTED: Phase.RUNNING,
        Cause.LEASE_LOST: Phase.FINISHED,
        Cause.DRAIN: Phase.FINISHED,
    },
    Phase.RUNNING: {
        Cause.TROUBLE: Phase.STUCK,
        Cause.PAUSE: Phase.PAUSED,
        Cause.GIVE_UP: Phase.FAILED,
        Cause.DRAIN: Phase.DRAINING,
        Cause.LEASE_LOST: Phase.FINISHED,
    },
    Phase.STUCK: {
        Cause.RELIEF: Phase.RUNNING,
        Cause.PAUSE: Phase.PAUSED,
        Cause.GIVE_UP: Phase.FAILED,
        Cause.DRAIN: Phase.DRAINING,
        Cause.LEASE_LOST: Phase.FINISHED,
    },
    Phase.PAUSED: {
        Cause.RESUME: Phase.RUNNING,
        Cause.GIVE_UP: Phase.FAILED,
        Cause.DRAIN: Phase.DRAINING,
        Cause.LEASE_LOST: Phase.FINISHED,
    },
    Phase.FAILED: {
        Cause.RESUME: Phase.RUNNING,
        Cause.DRAIN: Phase.DRAINING,
        Cause.LEASE_LOST: Phase.FINISHED,
    },
    Phase.DRAINING: {
        Cause.DRAINED: Phase.FINISHED,
        Cause.LEASE_LOST: Phase.FINISHED,
    },
    Phase.FINISHED: {},
}


def after(phase: Phase, cause: Cause) -> Phase:
    """Return the phase that follows; a pair that the table does not list changes nothing."""
    return TABLE[phase].get(cause, phase)


def delivers(phase: Phase) -> bool:
    """Whether events are handed to consumers in this phase."""
    return phase is Phase.RUNNING or phase is Phase.STUCK
