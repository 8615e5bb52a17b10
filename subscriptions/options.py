"""What a user says about a subscription: each option once, with its default and its meaning.

Values only. Environment, command line and documentation derive from these classes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from headwater.storage.checks import check_filter, check_name
from headwater.storage.errors import InvalidArgument
from headwater.storage.model import ALL, EVERYTHING, Filter
from headwater.storage.registry import StartPoint
from headwater.subscriptions.checks import (
    MOST_PARTITIONS,
    check_consumers,
    check_count,
    check_error_classes,
    check_kind,
    check_labels,
    check_partition_key,
    check_path,
    check_policies,
    check_resources,
    check_share,
    check_span,
    check_start,
)


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
    by_error: tuple[tuple[type[BaseException], RetryPolicy], ...] = ()
    """Policies for some error classes; the first that fits counts, and this one for all others. Attempts are counted
    for the event, whatever each of them ended with."""

    def of(self, error: BaseException) -> RetryPolicy:
        """Return the policy for an error."""
        return next((policy for kind, policy in self.by_error if isinstance(error, kind)), self)

    def __post_init__(self) -> None:
        """Refuse what can never work. Raises InvalidArgument."""
        check_count("attempts", self.attempts)
        check_span("first_delay", self.first_delay, may_be_zero=True)
        check_share("factor", self.factor, 1, 1000)
        check_span("max_delay", self.max_delay, may_be_zero=True)
        check_share("jitter", self.jitter, 0, 1)
        check_kind("then", self.then, OnFailure)
        check_error_classes("never", self.never)
        check_policies(self.by_error, RetryPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionOptions:
    """Everything that can be chosen for a persistent subscription."""

    source: str = ALL
    """A stream's name, or ALL for the store-wide order (narrowed by ``where``: a category, types, tags)."""
    where: Filter = EVERYTHING
    """What to deliver; applied by the database, and the checkpoint moves past what is left out."""
    start: StartAt = ORIGIN
    """Where to begin, when the subscription is registered for the first time."""
    replaces: str | None = None
    """The subscription that this one is a new version of: it follows the old one, all of which is a replay without side
    effects, and takes over from it at an exact position once it has caught up."""
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    batch_size: int = 1
    """1: the handler takes one event. More: it takes a list of up to so many."""
    consumers: int | tuple[int, int] = 0
    """0: the handler runs in the owner's process, one delivery at a time. N: on N handler actors, in parallel. A pair:
    on as many handler actors as the load wants, at least the first number and at most the second. Handler actors are
    processes where Ray runs them; without Ray they are tasks of the owner's process."""
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
    """... or when so much time has passed since the first unsaved one; the last of all at once, but not more often."""
    poll_interval: timedelta = timedelta(seconds=1)
    """How long a lost hint can delay an event: the source is looked at this often when nothing was announced."""
    handler_timeout: timedelta | None = None
    """How long one delivery may take before it counts as failed. In pull mode it counts from when a batch is taken."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    breaker: int = 20
    """Pause when so many events in a row were taken out, failed or behind one that did: then it is not their fault."""
    drain_timeout: timedelta = timedelta(seconds=10)
    """How long a hand-over waits for what is in flight."""
    consumer_memory: int | None = None
    """How many bytes of memory each handler actor may have. Its owner looks ten times a second, and ends one that has
    more; what that had in its hands has failed once more, and goes to a new one. Nothing is looked at without Ray."""
    resources: tuple[tuple[str, float], ...] = ()
    """Ray resources that each handler actor needs, ``CPU``, ``GPU`` and ``memory`` (in bytes) among them:
    ``(("GPU", 1.0),)``. What others have taken on a node is not there."""
    labels: tuple[tuple[str, str], ...] = ()
    """Labels that a node must have to own it or stand by for it: ``(("zone", "a"),)``."""
    apart: str | None = None
    """A word that several subscriptions share: they are kept on different nodes, as far as the balance allows. The
    partitions of one subscription are anyway."""

    def __post_init__(self) -> None:
        """Refuse what can never work. Raises InvalidArgument."""
        check_name("source", self.source)
        check_filter(self.where)
        if not isinstance(self.start, Start):
            check_start(self.start)
        for name in ("replaces", "apart"):
            if getattr(self, name) is not None:
                check_name(name, getattr(self, name))
        check_kind("delivery", self.delivery, Delivery)
        for name in ("batch_size", "read_size", "max_in_flight", "checkpoint_events", "breaker"):
            check_count(name, getattr(self, name))
        check_count("partitions", self.partitions, 1, MOST_PARTITIONS)
        check_consumers(self.consumers)
        check_partition_key(self.partition_by)
        check_path("selector", self.selector)
        check_path("mapper", self.mapper)
        check_span("checkpoint_interval", self.checkpoint_interval, may_be_zero=True)
        check_span("poll_interval", self.poll_interval)
        check_span("idle_after", self.idle_after, may_be_zero=True)
        check_span("drain_timeout", self.drain_timeout, may_be_zero=True)
        if self.handler_timeout is not None:
            check_span("handler_timeout", self.handler_timeout)
        check_kind("retry", self.retry, RetryPolicy)
        check_resources(self.resources)
        check_labels(self.labels)
        if self.consumer_memory is not None:
            check_count("consumer_memory", self.consumer_memory)
            if not self.consumers:
                raise InvalidArgument("consumer_memory", "is of handler actors: the handler needs some, by consumers")
        if self.delivery is not Delivery.AT_LEAST_ONCE and self.consumers:
            raise InvalidArgument("consumers", f"{self.delivery.value} delivery goes to one consumer: use partitions")

    @property
    def start_point(self) -> StartPoint:
        """Where to begin, as the durable side names it."""
        return self.start.value if isinstance(self.start, Start) else self.start

    @property
    def least_consumers(self) -> int:
        """How many handler actors there are always; 0: the handler runs in the owner's process."""
        return self.consumers[0] if isinstance(self.consumers, tuple) else self.consumers

    @property
    def needs(self) -> tuple[tuple[str, float], ...]:
        """The resources that all handler actors together need which there are always."""
        return tuple((name, amount * max(1, self.least_consumers)) for name, amount in self.resources)

    @property
    def most_consumers(self) -> int:
        """How many handler actors there are at the most."""
        return self.consumers[1] if isinstance(self.consumers, tuple) else self.consumers
