"""The failure policy at work: what becomes of a delivery that was not handled.

Knows nothing of consumers, reads or saves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from headwater.storage.model import RecordedEvent
from headwater.subscriptions.core.batch import Batch
from headwater.subscriptions.core.condition import Condition
from headwater.subscriptions.core.ledger import Ledger
from headwater.subscriptions.core.phases import Cause
from headwater.subscriptions.core.retry import Verdict, delay, judge
from headwater.subscriptions.core.work import Work
from headwater.subscriptions.options import Delivery, OnFailure, SubscriptionOptions

DIED = "the handler ended its process, or was ended with it, at every attempt"


class Failing:
    """Retries, parks, skips, stops; and trips the breaker when nothing gets through.

    1. An event is given up only after an attempt in which it was alone, at-most-once deliveries aside.
    2. A given-up event is settled only once it is skipped on purpose or durably parked.
    """

    def __init__(
        self,
        options: SubscriptionOptions,
        work: Work,
        ledger: Ledger,
        condition: Condition,
        random: Callable[[], float],
        skipped: Callable[[RecordedEvent, str, int], None],
    ) -> None:
        self._at_most_once = options.delivery is Delivery.AT_MOST_ONCE
        self._policy = replace(options.retry, attempts=1) if self._at_most_once else options.retry
        self._breaker = options.breaker
        self._work = work
        self._ledger = ledger
        self._condition = condition
        self._random = random
        self._skipped = skipped
        self._given_up = 0

    def success(self, now: float) -> None:
        """Note that something was handled."""
        self._given_up = 0
        self._condition.relieve("handler", now)

    def reset(self) -> None:
        """Forget the failures in a row: an operator has resumed."""
        self._given_up = 0

    def failure(self, batch: Batch, error: str, *, mendable: bool, now: float) -> None:
        """Decide what becomes of a batch that was delivered and not handled."""
        verdict = judge(self._policy, attempt=batch.attempt, size=len(batch.places), mendable=mendable)
        if self._at_most_once:
            self._give_up_all(batch, error, now)
        elif verdict is Verdict.GIVE_UP:
            self.give_up(batch, error, now)
        else:
            wait = delay(self._policy, batch.attempt, self._random)
            again = self._work.apart(batch) if verdict is Verdict.APART else replace(batch, attempt=batch.attempt + 1)
            self._work.postpone(again, now + wait)
            if self._work.exclusive:
                self._condition.trouble("handler", f"attempt {batch.attempt} failed: {error}", now)

    def hopeless(self, batch: Batch) -> bool:
        """Whether the attempts of a batch were used up by owners that died."""
        return batch.counted and batch.attempt > self._policy.attempts and self._work.sole_suspect(batch)

    def _give_up_all(self, batch: Batch, error: str, now: float) -> None:
        for place in batch.places:
            self.give_up(Batch((place,), attempt=batch.attempt), error, now)

    def give_up(self, batch: Batch, error: str, now: float) -> None:
        """Do what the policy says with a batch of one event whose attempts are used up."""
        place = batch.places[0]
        event = self._work.window.event(place)
        self._condition.relieve("handler", now)
        if self._policy.then is OnFailure.STOP:
            reason = f"position {event.position} ({event.type}) failed {batch.attempt} times: {error}"
            self._condition.become(Cause.GIVE_UP, reason, now)
            if not self._at_most_once:
                self._work.put_back(replace(batch, attempt=1))
                return
        if self._policy.then is not OnFailure.PARK:
            self._skipped(event, error, batch.attempt)
            self._work.window.settle(batch.places)
            self._ledger.settle(1, now)
        else:
            self._work.park(place, error, batch.attempt, batch)
        self._work.leave(batch)
        self._given_up += 1
        if self._given_up >= self._breaker:
            reason = f"breaker: {self._given_up} events in a row failed, the last one with {error}"
            self._condition.become(Cause.PAUSE, reason, now)
