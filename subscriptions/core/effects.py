"""What the shell must do, as values.

Holds no behaviour. Read, Deliver, Save, Reload, Park, Halt and Retry are each answered by one input, however late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from headwater.storage import leases
from headwater.storage.leases import Progress, Retried
from headwater.storage.model import RecordedEvent
from headwater.subscriptions.core.phases import Phase
from headwater.subscriptions.ports import ParkedEvent


@dataclass(frozen=True, slots=True)
class Read:
    """Read the next page; answered by PageRead or ReadFailed."""

    read_id: int
    after: int
    limit: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand these events to that consumer; answered by Handled or Failed, or by Withdrawn."""

    delivery_id: int
    consumer: int
    events: Sequence[RecordedEvent]
    attempt: int
    commit: Progress | Retried | None
    """Exactly-once only: what the handler's own transaction must save."""
    parked: bool = False
    """Whether this is a parked event that is handled again: never a replay."""


@dataclass(frozen=True, slots=True)
class Save:
    """Make this progress durable; answered by Saved or SaveFailed. There is never more than one at a time."""

    progress: Progress
    rewind: bool = False
    """Whether the checkpoint may fall: an operator asked for it."""
    settled: int = 0
    """With a rewind: up to here everything was settled before, so handing it out is a replay."""
    side_effects: bool = True
    """With a rewind: whether that replay may have effects outside."""
    commands: tuple[int, ...] = ()
    """With a rewind: the commands that asked for it, which are obeyed by this save."""
    back: bool = False
    """Whether the checkpoint falls to what was handed out, as nobody took what it has passed: at-most-once."""
    durable: bool = False
    """Whether it must be on disk before anything is delivered: at-most-once."""

    @property
    def sets_back(self) -> bool:
        """Whether it sets the checkpoint back: then nothing that was sent before may count after it."""
        return self.rewind or self.back


@dataclass(frozen=True, slots=True)
class Reload:
    """Ask for the durable progress; answered by Reloaded or SaveFailed."""


@dataclass(frozen=True, slots=True)
class Park:
    """Set these events aside; answered by Parked or ParkFailed. There is never more than one at a time."""

    token: int
    parked: Sequence[ParkedEvent]


@dataclass(frozen=True, slots=True)
class Report:
    """Tell operators what the subscription is doing."""

    phase: Phase
    reason: str | None


@dataclass(frozen=True, slots=True)
class Halt:
    """Write down that the partition waits for an operator, or (None) goes on; answered by HaltWritten, when it is."""

    number: int
    halt: leases.Halt | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """Tell operators that an event was given up and passed over."""

    event: RecordedEvent
    error: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Retry:
    """Write down how the retry of a parked event went, ``error`` None when it was handled; answered by RetryWritten."""

    position: int
    key: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell whoever acknowledged this delivery that it is not in flight (any more)."""

    delivery_id: int


Effect: TypeAlias = Read | Deliver | Save | Reload | Park | Halt | Report | Skipped | Retry | Refuse
