"""What a user says about a subscription: each option once, with its default and its meaning.

Values only. Environment, command line and documentation derive from these classes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from headwater.storage.errors import InvalidArgument
from headwater.storage.model import ALL, EVERYTHING, Filter


class Delivery(enum.Enum):
    """What is promised about a handler's effects when something breaks."""

    AT_LEAST_ONCE = "at-least-once"
    """Every event is handled; after a failure some are handled again."""
    EXACTLY_ONCE = "exactly-once"
    """The handler writes through ``context.transaction``; its writes and the checkpoint commit together."""
    AT_MOST_ONCE = "at-most-once"
    """The checkpoint is saved before the handler runs; after a failure some events are not handled."""


class Start(enum.Enum):
    """Where a new subscription begins, when not at a position or a time."""

    ORIGIN = "origin"
    CURRENT = "current"

    def __repr__(self) -> str:
        return self.name


ORIGIN: Final = Start.ORIGIN
CURRENT: Final = Start.CURRENT

StartAt: TypeAlias = Start | int | datetime
"""ORIGIN, CURRENT, a number (begin after it), or a time (begin with the first event at or after it)."""


class OnFailure(enum.Enum):
    """What happens to an event whose retries are used up."""

    PARK = "park"
    """Set it aside durably; later events of the same partition key wait behind it, other keys go on."""
    SKIP = "skip"
    """Record it and go on."""
    STOP = "stop"
    """Stop the subscription, with the reason, until an operator resumes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and how far apart, a failed delivery is tried again."""

    attempts: int = 5
    """How often an event is given to the handler in all, before ``then`` applies. A crash counts as an attempt."""
    first_delay: timedelta = timedelta(milliseconds=100)
    """The wait before the second attempt; each further one is ``factor`` times as long."""
    factor: float = 3.0
    max_delay: timedelta = timedelta(seconds=30)
    jitter: float = 0.2
    """The share of each delay that is random, so that many retries do not come at once."""
    then: OnFailure = OnFailure.PARK
    never: tuple[type[BaseException], ...] = ()
    """Error classes that no retry can mend: ``then`` applies at once."""

    def __post_init__(self) -> None:
        """Refuse what can never work. Raises InvalidArgument."""
        if self.attempts < 1:
            raise InvalidArgument("attempts", f"must be 1 or more, not {self.attempts}")
        if not 0 <= self.jitter <= 1:
            raise InvalidArgument("jitter", f"must be from 0 to 1, not {self.jitter}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionOptions:
    """Everything that can be chosen for a persistent subscription."""

    source: str = ALL
    """A stream's name, or ALL for the store-wide order (narrowed by ``where``: a category, types, tags)."""
    where: Filter = EVERYTHING
    """What to deliver; applied by the database, and the checkpoint moves past what is left out."""
    start: StartAt = ORIGIN
    """Where to begin, when the subscription is registered for the first time."""
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    batch_size: int = 1
    """1: the handler takes one event. More: it takes a list of up to so many."""
    consumers: int | tuple[int, int] = 0
    """0: the handler runs in the owner's process, one delivery at a time. N: on N handler actors, in parallel. A pair:
    on as many handler actors as the load wants, at least the first number and at most the second."""
    idle_after: timedelta = timedelta(seconds=30)
    """With a pair of ``consumers``: how long more of them than the load wants are kept."""
    partition_by: str | None = None
    """The events that must stay in order with each other when there are several consumers or partitions: ``"stream"``
    (what None means), ``"category"``, ``"correlation_id"``, ``"data.<field>"``, ``"metadata.<field>"``, or the import
    path of a function of the event. Events with the key None have no order among each other; ``"none"`` says so of
    all."""
    partitions: int = 1
    """How many owners share the subscription, each with its own checkpoint."""
    selector: str | None = None
    """Import path of a function of the event: falsy means not delivered."""
    mapper: str | None = None
    """Import path of a function that turns the event into what the handler gets."""
    read_size: int = 1000
    """How many events one read brings."""
    max_in_flight: int = 4000
    """How many events may be read and not yet settled: the bound on memory."""
    checkpoint_events: int = 1000
    """Save the checkpoint after so many settled events ..."""
    checkpoint_interval: timedelta = timedelta(milliseconds=200)
    """... or when so much time has passed since the first unsaved one."""
    poll_interval: timedelta = timedelta(seconds=1)
    """How long a lost hint can delay an event: the source is looked at this often when nothing was announced."""
    handler_timeout: timedelta | None = None
    """How long one delivery may take before it counts as failed."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    breaker: int = 20
    """Pause the subscription when so many events in a row used up their attempts: then it is not the events' fault."""
    drain_timeout: timedelta = timedelta(seconds=10)
    """How long a hand-over waits for what is in flight."""
    resources: tuple[tuple[str, float], ...] = ()
    """Ray resources that each handler actor needs: ``(("GPU", 1.0),)``."""
    labels: tuple[tuple[str, str], ...] = ()
    """Labels that a node must have to own it or stand by for it: ``(("zone", "a"),)``."""
    apart: str | None = None
    """A word that several subscriptions share: they are kept on different nodes, as far as the balance allows. The
    partitions of one subscription are anyway."""

    def __post_init__(self) -> None:
        """Refuse what can never work. Raises InvalidArgument."""
        for name in ("batch_size", "partitions", "read_size", "max_in_flight", "checkpoint_events", "breaker"):
            if getattr(self, name) < 1:
                raise InvalidArgument(name, f"must be 1 or more, not {getattr(self, name)}")
        if isinstance(self.consumers, tuple):
            if not 1 <= self.least_consumers <= self.most_consumers:
                raise InvalidArgument(
                    "consumers", f"{self.consumers}: write (least, most), with 1 or more as the least"
                )
        elif self.consumers < 0:
            raise InvalidArgument("consumers", f"must be 0 or more, not {self.consumers}")
        if self.delivery is not Delivery.AT_LEAST_ONCE and self.consumers:
            raise InvalidArgument("consumers", f"{self.delivery.value} delivery goes to one consumer: use partitions")

    @property
    def least_consumers(self) -> int:
        """How many handler actors there are always; 0: the handler runs in the owner's process."""
        return self.consumers[0] if isinstance(self.consumers, tuple) else self.consumers

    @property
    def most_consumers(self) -> int:
        """How many handler actors there are at the most."""
        return self.consumers[1] if isinstance(self.consumers, tuple) else self.consumers
