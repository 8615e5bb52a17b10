"""What can be watched from outside: one interface that feeds logs, metrics and tests.

Never changes what happens: a user's observer that raises is logged and otherwise ignored.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from headwater.storage.errors import ConfigurationError, StoreUnavailable
from headwater.storage.leases import ParkedEvent, PartitionKey, Progress
from headwater.storage.model import EventPage, RecordedEvent
from headwater.subscriptions.core.phases import Phase
from headwater.subscriptions.imports import resolve
from headwater.subscriptions.ports import Delivered
from headwater.subscriptions.raised import described

logger = logging.getLogger("headwater.subscriptions")

TROUBLE_AGAIN: Final = 60.0
"""How long the same trouble of a partition is not told again, in seconds: it is tried again many times meanwhile."""


class Status(NamedTuple):
    """A partition at one moment, as its owner sees it."""

    phase: Phase
    reason: str | None
    since: datetime
    """When the phase, or its reason, last changed."""
    checkpoint: int
    watermark: int
    head: int
    in_flight: int
    """Events delivered and undecided."""
    unsettled: int
    """Events held in memory."""
    catching_up: bool
    at_capacity: bool

    @property
    def lag(self) -> int:
        """How many numbers the checkpoint is behind the head."""
        return max(0, self.head - self.checkpoint)


class Observer:
    """Watches partitions. Override what you need; nothing here does anything.

    All methods are called on the event loop of the owner, in its process: they must be quick and must not block.
    ``key`` has the subscription's name and the number of the partition.
    """

    def status_changed(self, key: PartitionKey, status: Status) -> None:
        """The phase, or its reason, changed."""

    def page_read(self, key: PartitionKey, page: EventPage, seconds: float) -> None:
        """A read brought a page."""

    def delivered(self, key: PartitionKey, delivery: Delivered) -> None:
        """Events go to a consumer."""

    def handled(self, key: PartitionKey, delivery: Delivered, seconds: float) -> None:
        """A consumer has handled them."""

    def failed(self, key: PartitionKey, delivery: Delivered, error: BaseException, seconds: float) -> None:
        """A consumer has not handled them."""

    def skipped(self, key: PartitionKey, event: RecordedEvent, error: str, attempts: int) -> None:
        """An event was given up and passed over."""

    def parked(self, key: PartitionKey, parked: Sequence[ParkedEvent]) -> None:
        """Events were set aside."""

    def checkpointed(self, key: PartitionKey, progress: Progress) -> None:
        """Progress was saved."""

    def refused(self, key: PartitionKey, delivery_id: int) -> None:
        """An answer came for a delivery that is not in flight (any more)."""

    def trouble(self, key: PartitionKey, what: str, error: BaseException) -> None:
        """Something outside did not answer, and is tried again."""


def load_observer(path: str | None) -> Observer:
    """Return the observer of an import path, an instance or a class, and without one what writes to the log.

    What the user's own one raises is logged and changes nothing. Raises ImportPathError, ConfigurationError.
    """
    if path is None:
        return LogObserver()
    found = resolve(path)
    observer = found() if isinstance(found, type) else found
    return guarded(observer, path)


def guarded(observer: Observer, name: str = "observer") -> Observer:
    """Return an observer of the user's as one that never raises. Raises ConfigurationError when it is none."""
    if not isinstance(observer, Observer):
        raise ConfigurationError(f"{name} is not an Observer but {type(observer).__name__}")
    return Observers(observer)


class LogObserver(Observer):
    """Writes what an operator wants to see to the logger ``headwater.subscriptions``.

    Trouble that comes again and again is told once a minute. That the database is away is no warning here: it is so for
    all partitions of a process, which says so once. That it answers and refuses is one.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._told: dict[tuple[PartitionKey, str], float] = {}

    def status_changed(self, key: PartitionKey, status: Status) -> None:
        logger.info("%s/%d is %s: %s", key.subscription, key.partition, status.phase.value, status.reason or "as usual")

    def failed(self, key: PartitionKey, delivery: Delivered, error: BaseException, seconds: float) -> None:
        logger.warning(
            "%s/%d attempt %d on %d events from position %d failed after %.3f s: %s",
            key.subscription,
            key.partition,
            delivery.attempt,
            len(delivery.events),
            delivery.events[0].position,
            seconds,
            described(error),
        )

    def skipped(self, key: PartitionKey, event: RecordedEvent, error: str, attempts: int) -> None:
        logger.error("%s/%d skips %r after %d attempts: %s", key.subscription, key.partition, event, attempts, error)

    def parked(self, key: PartitionKey, parked: Sequence[ParkedEvent]) -> None:
        for each in parked:
            why = "it waits behind an earlier one of its key" if each.error is None else each.error
            logger.error("%s/%d parks %r (%s): %s", key.subscription, key.partition, each.event, each.reason, why)

    def trouble(self, key: PartitionKey, what: str, error: BaseException) -> None:
        now = self._now()
        if now - self._told.get((key, what), float("-inf")) < TROUBLE_AGAIN:
            return
        self._told[key, what] = now
        level = logging.INFO if isinstance(error, StoreUnavailable) and _is_away(error) else logging.WARNING
        logger.log(level, "%s/%d cannot %s: %r", key.subscription, key.partition, what, error)


def _is_away(error: StoreUnavailable) -> bool:
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))


class Observers(Observer):
    """Several observers as one; what one of them raises reaches neither the others nor the subscription."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def __getattribute__(self, name: str) -> object:
        if name.startswith("_") or name not in Observer.__dict__:
            return super().__getattribute__(name)
        observers = self._observers

        def tell(*arguments: object) -> None:
            for observer in observers:
                try:
                    getattr(observer, name)(*arguments)
                except Exception:
                    logger.exception("observer %r failed in %s", observer, name)

        return tell
