"""The values of ownership: which partition, granted to whom under which epoch, and how far it came.

Values only; the sessions that hold the locks are in ``postgres`` and ``memory``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from headwater.storage.model import RecordedEvent


class News(enum.Enum):
    """What hosts and supervisors are told at once, most of it by the database, and find out by polling in any case."""

    WANTED = "wanted"
    """Somebody asked for something: another state of a subscription, a move, a rewind, a drained host."""
    ASSIGNED = "assigned"
    """The supervisor has written down who should own what."""
    READY = "ready"
    """A host is ready to take partitions over."""
    RELEASED = "released"
    """An owner has given leases back."""
    CONNECTED = "connected"
    """There is a lease session again: it holds nothing yet, and leases can be claimed."""


@dataclass(frozen=True, slots=True)
class PartitionKey:
    """One partition of one subscription, and the advisory lock that stands for it."""

    subscription: str
    partition: int
    lock_id: int


@dataclass(frozen=True, slots=True)
class Grant:
    """The right to run a partition: valid until another grant of it has a higher epoch."""

    key: PartitionKey
    epoch: int
    owner: str
    session: int
    """Which session of this process holds it; a new session holds nothing of the old one."""
    progress: Progress
    """How far the partition had come when it was granted."""
    seam: Any | None = None
    """What earlier sets of the subscription's partitions had settled beyond that, as a JSON value; None: nothing."""
    rewinds: int = 0
    """How often its owner began to set the checkpoint back: what was sent before the last time writes nothing now."""
    write: int = 0
    """Which of its owner's writes this goes with: after one of the same kind with a higher number it writes nothing."""

    def numbered(self, write: int) -> Grant:
        """Return the grant for one write; the number is above that of every write of its kind that was sent before."""
        return replace(self, write=write)

    def rewound(self) -> Grant:
        """Return the grant for one more try to set the checkpoint back, and for all that is written after it."""
        return replace(self, rewinds=self.rewinds + 1)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a partition came, as it is saved."""

    checkpoint: int
    """Everything of the source up to this number is settled."""
    in_flight_to: int = 0
    """Everything after the checkpoint up to this number may have reached the handler (not above: nothing)."""
    attempt: int = 0
    """How often the handler was begun on what follows the checkpoint. Counted before the handler runs."""
    delivered: int = 0
    """Events handed to the handler since the last save, first attempts."""
    redelivered: int = 0
    """Events handed to the handler again since the last save."""
    stream_id: int | None = None
    """The incarnation of the stream that the numbers count in; None for the store-wide order."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """Up to where everything was settled before: what is handed out of that is a replay."""

    until: int = 0
    final: bool = True
    """False while nothing above it may be read: an older version is at work there, or only a range is replayed."""
    side_effects: bool = True
    """Whether handlers may have effects outside while they replay."""


@dataclass(frozen=True, slots=True)
class Halt:
    """A partition that waits for an operator, whoever owns it: the failure policy or the breaker has stopped it."""

    phase: str | None
    """``failed`` or ``paused``; None once it was resumed, until an owner has gone on."""
    reason: str | None
    age: float = 0.0
    """For how many seconds."""


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """An event to set aside, with the reason."""

    event: RecordedEvent
    key: str | None
    """Its partition key: later events of the same key wait behind it."""
    reason: str
    """``"failed"`` for the event that failed, ``"behind"`` for a later one of the same key; ``"held"`` for one that was
    behind another, and that nothing but an operator lets go on any more."""
    error: str | None
    attempts: int


class ToRetry(NamedTuple):
    """A parked event that the owner should handle again."""

    position: int
    key: str | None
    attempts: int
    """How often it was handed out before."""
    begun: int
    """How many of these attempts nobody has told the end of, since it was last asked for: their owners have died."""
    number: int
    """Where it stands in the source of its subscription, as checkpoints count."""
    wait: float = 0.0
    """After so many seconds it is due: a rate does not let it go earlier."""


class RetryBegun(NamedTuple):
    """An attempt at a parked event that was counted, and may be made."""

    edited: bytes | None
    """The corrected payload as JSON, when an operator has made one."""


@dataclass(frozen=True, slots=True)
class Retried:
    """A parked event that is handled again: what a handler's own transaction settles, exactly-once only."""

    position: int
    key: str | None
