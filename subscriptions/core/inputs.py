"""The facts that a subscription's machine is told, as values.

Holds no behaviour; what each fact leads to is in ``machine``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from headwater.storage.leases import Halt, Progress
from headwater.storage.model import EventPage
from headwater.subscriptions.core.retrying import ParkedRetry
from headwater.subscriptions.options import OnFailure, RetryPolicy


@dataclass(frozen=True, slots=True)
class Granted:
    """The lease is ours; the previous owner came so far, and left these keys with parked events."""

    progress: Progress
    parked_keys: frozenset[str] = field(default_factory=frozenset)
    halt: Halt | None = None
    """Why an earlier owner stopped, unless one has gone on since."""


@dataclass(frozen=True, slots=True)
class HeadSeen:
    """Somebody says that the source's head is here. It may be late, doubled or invented."""

    head: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; nothing else happened."""


@dataclass(frozen=True, slots=True)
class PageRead:
    """The read of this id brought a page."""

    read_id: int
    page: EventPage


@dataclass(frozen=True, slots=True)
class ReadFailed:
    """The read of this id brought nothing but an error."""

    read_id: int
    error: str


@dataclass(frozen=True, slots=True)
class Handled:
    """A consumer has handled this delivery, or (when numbers are given) those of its events, and has the rest still."""

    delivery_id: int
    numbers: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A consumer has not handled this delivery."""

    delivery_id: int
    error: str
    mendable: bool = True
    """False when no retry can help: the policy's last resort applies at once."""
    lost: bool = False
    """True when the consumer itself is gone and it is unknown whether the handler ran."""
    then: OnFailure | None = None
    """What the consumer itself wants to become of these events; None leaves it to the failure policy."""
    policy: RetryPolicy | None = None
    """The failure policy for this kind of error; None means the subscription's."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A consumer of this number is there (again) and has room for a delivery."""

    consumer: int


@dataclass(frozen=True, slots=True)
class Retired:
    """A consumer is to get nothing more; what it has in flight it finishes first."""

    consumer: int


@dataclass(frozen=True, slots=True)
class Left:
    """A consumer has gone for good; what it had in flight is delivered again, to others.

    At-most-once only what it has not taken: an attempt at the rest may have been made.
    """

    consumer: int
    taken: frozenset[int] | None = None
    """The numbers of those events that the user's code may have seen; None when that may be all of them."""


@dataclass(frozen=True, slots=True)
class Awaited:
    """A delivery waits for its consumer, which has ended and was not made anew yet: no attempt has begun."""

    consumer: int


@dataclass(frozen=True, slots=True)
class Arrived:
    """It waits no more: the consumer is there, or that was given up."""

    consumer: int


@dataclass(frozen=True, slots=True)
class Saved:
    """The progress that was to be saved is durable."""


@dataclass(frozen=True, slots=True)
class SaveFailed:
    """The progress could not be saved; whether it is durable is unknown."""

    error: str


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What the durable progress is, asked for because the outcome of a commit was unknown."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class Parked:
    """The events that were to be parked under this token are durable there."""

    token: int


@dataclass(frozen=True, slots=True)
class ParkFailed:
    """The events could not be parked; whether they are is unknown, and parking them again is harmless."""

    token: int
    error: str


@dataclass(frozen=True, slots=True)
class HaltWritten:
    """What was to be written down under this number, of a stop or of its end, is durable."""

    number: int


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """The right to run is over, or may be."""

    reason: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Deliver nothing more until resumed; what is in flight ends."""

    reason: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on: after a pause, a tripped breaker, or a stop by the failure policy."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Deliver nothing more, let what is in flight end, save, and finish."""

    reason: str = "drained"


@dataclass(frozen=True, slots=True)
class Rewind:
    """Begin again after this number (or skip forward to it), once nothing is in flight any more."""

    to: int
    side_effects: bool = True
    """Whether handlers may have effects outside, up to where it was when it was rewound."""
    command: int | None = None
    """The command that asked for it: obeyed once, however often it is told, and by the save of its effect."""


@dataclass(frozen=True, slots=True)
class RetryParked:
    """These parked events are to be handled again, in this order."""

    retries: tuple[ParkedRetry, ...]
    as_of: int = 0
    """How many rewinds were made when it was looked: a later one may have changed their numbers, or closed them."""


@dataclass(frozen=True, slots=True)
class RetryWritten:
    """It was written down how the retry of this event went, or could not be: then it comes again."""

    position: int


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A parked event was not handed out again after all, as it must not be any more: an operator has decided so."""

    delivery_id: int


@dataclass(frozen=True, slots=True)
class KeysFreed:
    """Every parked event of these keys was settled when ``as_of`` events had been durably parked under this grant.

    Their later events need not wait any more, unless others were parked behind them meanwhile, or are about to be.
    """

    keys: frozenset[str]
    as_of: int


Input: TypeAlias = (
    Granted
    | HeadSeen
    | Tick
    | PageRead
    | ReadFailed
    | Handled
    | Failed
    | Joined
    | Retired
    | Left
    | Awaited
    | Arrived
    | Saved
    | SaveFailed
    | Reloaded
    | Parked
    | ParkFailed
    | HaltWritten
    | LeaseLost
    | Pause
    | Resume
    | Drain
    | Rewind
    | RetryParked
    | RetryWritten
    | Withdrawn
    | KeysFreed
)
