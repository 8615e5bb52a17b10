"""What the deciding side needs from the outside, as narrow protocols, and the values that cross them.

Holds no adapter: the durable side offers them for Postgres and in memory; one contract suite holds both to this.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from headwater.storage.leases import (
    Boundary,
    Grant,
    Halt,
    ParkedEvent,
    PartitionKey,
    Progress,
    Retried,
    RetryBegun,
    ToRetry,
)
from headwater.storage.model import EventPage, Filter, RecordedEvent
from headwater.subscriptions.options import OnFailure

__all__ = [
    "Boundaries",
    "Boundary",
    "Checkpoints",
    "Clock",
    "Consumer",
    "ConsumerLost",
    "Delivered",
    "EventReader",
    "Halt",
    "Hints",
    "Leases",
    "Nack",
    "Opener",
    "ParkedEvent",
    "Parking",
    "Replaceable",
    "Unmendable",
]


class EventReader(Protocol):
    """Reads pages of events. Part of every event store."""

    async def read_page(self, source: str, after: int, limit: int, *, where: Filter = ...) -> EventPage: ...

    async def head(self) -> int: ...


class Opener(Protocol):
    """Opens events: decrypts, decodes and lifts what their payloads show.

    A reader has opened them for the selector and the key function; whoever hands them to the user's code opens them
    again, because a key may have been destroyed since.
    """

    async def open(self, events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
        """Return events as they may be seen now, whether they were opened before or not. Raises StoreUnavailable."""
        ...


class Leases(Protocol):
    """The time-limited rights to run partitions, all held by one session of this process."""

    @property
    def valid_until(self) -> float:
        """The monotonic time up to which the server certainly still holds what was granted. Deliver only before it."""
        ...

    async def claim(self, keys: Sequence[PartitionKey]) -> list[Grant]:
        """Try once to get each lease; returns the grants. Never waits for another owner.

        Each grant has raised the partition's epoch. Raises StoreUnavailable when the session is gone (everything that
        it held is, too).
        """
        ...

    async def release(self, grants: Sequence[Grant]) -> None:
        """Give leases back at once. Safe to repeat."""
        ...

    def lost(self, grant: Grant) -> bool:
        """Whether the session that this grant was made to has ended, or may have."""
        ...

    def on_lost(self, tell: Callable[[int], None]) -> Callable[[], None]:
        """Call ``tell``, on the event loop, with each session that has ended; returns what ends that."""
        ...


class Checkpoints(Protocol):
    """The durable progress of partitions. Each write names the grant's epoch and does nothing when that is stale.

    Nor does one that was sent before a rewind and comes after it, unless it only tells what the partition is doing: a
    connection may break, and the server execute later what came through it. It raises StaleEpoch, too. For the same
    reason each save, park and report, of which there is one at a time, names ``grant.numbered(n)`` with a number above
    that of the one before: after a later one of its kind it changes nothing.
    """

    async def save(self, grant: Grant, progress: Progress, *, conn: Any = None, durable: bool = False) -> None:
        """Save how far the partition came; a lower checkpoint than the saved one, and an older save, change nothing.

        Raises StaleEpoch; safe to repeat. ``conn`` joins a transaction: then a checkpoint that is not above the saved
        one raises UnexpectedAck, so that a handler that hung and comes back late cannot commit its effects a second
        time. Without ``durable`` a crash of the database
        server may take the last moments' saves back, which only delivers again; at-most-once must ask for it.
        """
        ...

    async def load(self, grant: Grant) -> Progress:
        """Return the saved progress: asked for when the outcome of a commit is unknown. Raises StaleEpoch."""
        ...

    async def rewind(
        self,
        grant: Grant,
        progress: Progress,
        *,
        settled: int = 0,
        side_effects: bool = True,
        commands: Sequence[int] = (),
    ) -> None:
        """Set the progress, also to a lower checkpoint: what an operator asked for. Raises StaleEpoch.

        Each try names a grant of its own, ``grant.rewound()`` of the one before, and what is written afterwards names
        the last of them. So it is safe to repeat, and a try that is late is refused like all that was sent before.
        Everything up to ``settled`` was settled before: it is a replay, with side effects or without. The operators'
        ``commands`` that asked for it are obeyed by the same write: both are durable, or neither.
        """
        ...

    async def take_back(self, grant: Grant, progress: Progress) -> None:
        """Lower the checkpoint to what was handed out: an at-most-once save had passed more, and nobody took that.

        Nothing else changes; what comes again is no replay. Each try names a grant of its own, as a rewind does. Raises
        StaleEpoch.
        """
        ...

    async def report(self, grant: Grant, phase: str, reason: str | None) -> None:
        """Say what the partition is doing, for operators. Raises StaleEpoch."""
        ...

    async def halt(self, grant: Grant, number: int, halt: Halt | None) -> None:
        """Say that the partition waits for an operator, whoever owns it, or (None) that it goes on. Raises StaleEpoch.

        ``number`` counts these writes under one grant: one that comes after a later one changes nothing.
        """
        ...

    async def halted(self, grant: Grant) -> Halt | None:
        """Return why an earlier owner stopped, unless one has gone on since. Raises StaleEpoch."""
        ...

    async def report_consumers(self, grant: Grant, consumers: int) -> None:
        """Say how many handler actors work for the partition, for operators. Raises StaleEpoch."""
        ...

    async def park(self, grant: Grant, parked: Sequence[ParkedEvent]) -> None:
        """Set events aside. Raises StaleEpoch; the same event parked again changes nothing."""
        ...

    async def parked_keys(self, grant: Grant) -> set[str]:
        """The partition keys that have parked events: later events of them must wait behind."""
        ...


class Boundaries(Protocol):
    """What a partition hands out as a replay, and how far it may read."""

    async def boundary(self, grant: Grant) -> Boundary:
        """Return the boundary as it is now. Raises StaleEpoch."""
        ...


class Parking(Protocol):
    """The parked events that are to be handled again. Each write is numbered as those of ``Checkpoints`` are."""

    async def to_retry(self, grant: Grant, *, limit: int = 100) -> list[ToRetry]:
        """Return what to handle again, by position.

        These are the events that an operator asked for, and those that were parked behind another one that is settled.
        Of a retry with a rate it is only the next event, with how long it has to wait: the rate is of all partitions.
        """
        ...

    async def begin_retry(self, grant: Grant, position: int) -> RetryBegun | None:
        """Count an attempt before it is made; None when it is not to be made any more. Raises StaleEpoch."""
        ...

    async def retried(self, grant: Grant, position: int, key: str | None, error: str | None = None) -> None:
        """Say how it went. After an ``error`` it, and later ones of its key, wait again. Raises StaleEpoch."""
        ...


class Hints(Protocol):
    """Notifications that the head moved. Any may be lost, late, doubled or wrong: they only save waiting."""

    def listen(self) -> AsyncIterator[int]:
        """Yield heads as they are announced; ends only when cancelled, reconnects by itself."""
        ...

    async def publish(self, head: int) -> None:
        """Announce a head. Never raises and never takes longer than a few milliseconds of the caller's time."""
        ...


class Clock(Protocol):
    """Time as an argument."""

    def monotonic(self) -> float: ...


class Consumer(Protocol):
    """One executor of the handler: in this process, or an actor elsewhere."""

    async def handle(self, delivery: Delivered) -> None:
        """Run the handler on a delivery; returns when it is handled, raises what the handler raised.

        Raises ConsumerLost when the executor is gone and it is unknown whether the handler ran; the next call gets a
        new executor. Raises Unmendable, or lets it through, when no retry can help. Cancelled when the time-out of the
        subscription is over or the lease is lost: the handler's code should then be stopped, or be left behind.
        """
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Replaceable(Protocol):
    """A consumer whose executor may have ended, and is made anew before the next delivery."""

    async def ready(self) -> None:
        """Make an executor ready, unless there is one. Raises ConsumerLost.

        How long that takes is not the handler's: the time-out of a delivery counts from here.
        """
        ...


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a consumer gets: a run of events with all that the handler may want to know."""

    delivery_id: int
    events: Sequence[RecordedEvent]
    attempt: int
    grant: Grant
    """Under which right: name, partition and epoch."""
    commit: Progress | Retried | None = None
    """Exactly-once only: what the consumer must save in the handler's own transaction before it commits."""
    replaying: bool = False
    """Whether all of it was settled before, here or by the version that this one replaces."""
    side_effects: bool = True
    """False while it replays and an operator wants no effects outside."""


class ConsumerLost(Exception):
    """The executor of the handler is gone; whether the handler ran is unknown."""


class Unmendable(Exception):
    """Raised by a handler, or around it: no retry of this delivery can help."""


class Nack(Exception):
    """Raised by a handler, or around it: not handled, and what is to become of the events."""

    def __init__(self, problem: str, action: OnFailure | None = None) -> None:
        super().__init__(problem, action)
        self.problem = problem
        self.action = action
        """None leaves it to the failure policy, which tries again first."""

    def __str__(self) -> str:
        return self.problem
