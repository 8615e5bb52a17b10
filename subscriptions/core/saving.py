"""What the durable progress must say before a delivery, and what is saved when.

Sends nothing: it answers the machine's questions about one partition.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from headwater.storage.leases import Progress
from headwater.subscriptions.core.batch import Batch
from headwater.subscriptions.core.ledger import Ledger
from headwater.subscriptions.core.work import Work
from headwater.subscriptions.options import Delivery, SubscriptionOptions

QUIET: Final = 1.0
"""After so many seconds without a delivery, the durable progress says that nothing is in flight."""

SLACK: Final = 0.1
"""By so much of the checkpoint interval a save may be early."""


class Saving:
    """The promise that is on disk, next to what is in flight.

    1. Whatever is in flight is covered: at-least-once and exactly-once by ``in_flight_to``, at-most-once by the
       checkpoint.
    2. A counted batch is covered by a promise of its own, so that a crash is charged to nobody else.
    3. An exactly-once delivery and a save are never under way together: the later one would undo the other.
    """

    def __init__(self, options: SubscriptionOptions, ledger: Ledger, work: Work) -> None:
        self.ledger = ledger
        self._work = work
        self._at_most_once = options.delivery is Delivery.AT_MOST_ONCE
        self._transactional = options.delivery is Delivery.EXACTLY_ONCE
        self._reserve = options.max_in_flight
        self._batch_size = options.batch_size
        self._slack = options.checkpoint_interval.total_seconds() * SLACK
        self._quiet_at = 0.0

    def must_wait(self, batch: Batch) -> bool:
        """Whether something that is under way must end before this delivery, or the save before it."""
        if self._transactional and self.ledger.saving is not None:
            return True
        # What is being parked would stand between the checkpoint and the batch.
        return self._work.parking and (self._transactional or batch.counted)

    def cleared(self, batch: Batch) -> bool:
        """Whether the durable progress allows this delivery."""
        last = self._last(batch)
        if self._at_most_once:
            return self.ledger.durable.checkpoint >= last
        return all(self._covers(promise, batch, last) for promise in self.ledger.possible())

    @property
    def ahead(self) -> bool:
        """Whether the saved checkpoint has passed, or may have, events that are not settled: at-most-once only."""
        return self._at_most_once and self._passed > self._work.window.watermark

    @property
    def _passed(self) -> int:
        return max(each.checkpoint for each in self.ledger.possible())

    def _covers(self, promise: Progress, batch: Batch, last: int) -> bool:
        if batch.counted:
            return promise.in_flight_to == last and promise.attempt >= batch.attempt
        counted = not self._work.exclusive or promise.attempt >= batch.attempt
        return counted and promise.in_flight_to >= last

    def before(self, batch: Batch) -> Progress:
        """Return what must be saved before this delivery."""
        last, mark = self._last(batch), self._work.window.watermark
        if self._at_most_once:
            return Progress(last, last)
        if batch.counted:
            return Progress(mark, last, batch.attempt)
        ahead = last if self._transactional else self._ahead()
        return Progress(mark, ahead, batch.attempt if self._work.exclusive else 1)

    def now_and_then(self, now: float) -> Progress:
        """Return what to save because events were settled, or because it has become quiet."""
        work, durable = self._work, self.ledger.durable
        mark = work.window.watermark
        if self._at_most_once:
            mark = max(mark, self._passed)
            return Progress(mark, mark)
        attempt = 1
        for batch in work.open_batches():
            if batch.counted:
                return replace(durable, checkpoint=mark, in_flight_to=max(mark, durable.in_flight_to))
            if work.exclusive:
                attempt = batch.attempt
        if work.suspect_to > mark:
            return self.last()
        if not work.window.unsettled and now >= self._quiet_at:
            return Progress(mark, mark)
        return Progress(mark, self._ahead(), attempt)

    def last(self) -> Progress:
        """Return what to save when nothing more is delivered: what a dead owner may have begun stays suspect."""
        mark = self._work.window.watermark
        if self._work.suspect_to > mark:
            return Progress(mark, self._work.suspect_to, self._work.suspect_attempt - 1)
        return Progress(mark, mark)

    def commit(self, batch: Batch) -> Progress | None:
        """Return what the handler's own transaction must save, if it has one."""
        if not self._transactional:
            return None
        mark = self._work.window.watermark_after(batch.places)
        if batch.counted:
            return self.ledger.stamped(Progress(mark, mark))
        # Each delivery saves anyway, so only the next one is promised: a crash puts no more than that under suspicion.
        next_last = self._work.window.number_at(batch.places[-1] + self._batch_size)
        return self.ledger.stamped(Progress(mark, max(mark, next_last), 1))

    def delivered(self, batch: Batch, now: float) -> None:
        """Note a delivery."""
        self.ledger.count(len(batch.places), again=batch.attempt > 1)
        self._quiet_at = now + QUIET

    def due_at(self) -> float | None:
        """Return when the next save is due without anybody waiting for it; None when there is nothing to say."""
        if self._transactional and self._work.in_flight:
            return None
        durable, idle = self.ledger.durable, self._idle
        due = self.ledger.due_at(idle=idle)
        if due is None and idle and durable.in_flight_to > durable.checkpoint:
            return max(self._quiet_at, self.ledger.not_before)
        return due

    def soon(self, now: float) -> bool:
        """Whether what was just settled is better saved at once than a little later, in the way of the next event."""
        due = self.ledger.due_at(idle=True) if self._idle else None
        return due is not None and now >= max(due - self._slack, self.ledger.not_before)

    @property
    def _idle(self) -> bool:
        return not self._work.window.unsettled and self._work.suspect_to <= self._work.window.watermark

    def _last(self, batch: Batch) -> int:
        return self._work.window.event(batch.places[-1]).number

    def _ahead(self) -> int:
        # Further than what was read: so the next pages need no save of their own before they are delivered.
        return self._work.window.read_to + self._reserve
