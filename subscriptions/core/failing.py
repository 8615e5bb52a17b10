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
from headwater.subscriptions.core.phases import Cause, Phase
from headwater.subscriptions.core.retry import Verdict, delay, judge
from headwater.subscriptions.core.work import Work
from headwater.subscriptions.options import Delivery, OnFailure, RetryPolicy, SubscriptionOptions

DIED = "the handler ended its process, was ended with it, or kept its event loop for too long, at every attempt"


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
        halted: Callable[[Phase, str], None],
        *,
        parks: bool = True,
    ) -> None:
        """Without ``parks``, what would be parked is skipped, whoever wants it parked."""
        self._at_most_once = options.delivery is Delivery.AT_MOST_ONCE
        self._policy = options.retry
        self._breaker = options.breaker
        self._work = work
        self._ledger = ledger
        self._condition = condition
        self._random = random
        self._skipped = skipped
        self._halted = halted
        self._parks = parks
        self._given_up = 0

    def success(self, now: float) -> None:
        """Note that something was handled."""
        self._given_up = 0
        self._condition.relieve("handler", now)

    def reset(self) -> None:
        """Forget the failures in a row: an operator has resumed."""
        self._given_up = 0

    def failure(
        self,
        batch: Batch,
        error: str,
        *,
        mendable: bool,
        now: float,
        then: OnFailure | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        """Decide what becomes of a batch that was delivered and not handled.

        ``then`` overrules the policy; ``policy`` is the one for this kind of error.
        """
        policy = self._policy if policy is None else policy
        if then is not None or self._at_most_once:
            self._end(batch, error, policy.then if then is None else then, now)
            return
        verdict = judge(policy, attempt=batch.attempt, size=len(batch.places), mendable=mendable)
        if verdict is Verdict.GIVE_UP:
            self._end(batch, error, policy.then, now)
        else:
            wait = delay(policy, batch.attempt, self._random)
            again = self._work.apart(batch) if verdict is Verdict.APART else replace(batch, attempt=batch.attempt + 1)
            self._work.postpone(again, now + wait)
            if self._work.exclusive:
                self._condition.trouble("handler", f"attempt {batch.attempt} failed: {error}", now)

    def hopeless(self, batch: Batch) -> bool:
        """Whether the attempts of a batch were used up by owners that died."""
        return batch.counted and batch.attempt > self._policy.attempts and self._work.sole_suspect(batch)

    def give_up(self, batch: Batch, error: str, now: float) -> None:
        """Do what the policy says with a batch of one event whose attempts are used up."""
        self._end(batch, error, self._policy.then, now)

    def _end(self, batch: Batch, error: str, then: OnFailure, now: float) -> None:
        self._condition.relieve("handler", now)
        if then is OnFailure.STOP:
            self._stop(batch, error, now)
            if not self._at_most_once:
                return
        if len(batch.places) == 1:
            self._set_aside(batch, error, then, now)
        else:
            for place in batch.places:
                one = replace(batch, places=(place,))
                self._set_aside(one, error, then, now)
                batch.rest = one.rest  # without what is parked behind it
        self._work.leave(batch)
        self._given_up += len(batch.places)
        if self._given_up >= self._breaker:
            reason = f"breaker: {self._given_up} events in a row failed, the last one with {error}"
            self._condition.become(Cause.PAUSE, reason, now)
            self._halted(Phase.PAUSED, reason)

    def _stop(self, batch: Batch, error: str, now: float) -> None:
        event = self._work.window.event(batch.places[0])
        reason = f"position {event.position} ({event.type}) failed {batch.attempt} times: {error}"
        self._condition.become(Cause.GIVE_UP, reason, now)
        self._halted(Phase.FAILED, reason)
        if not self._at_most_once:
            self._work.put_back(replace(batch, attempt=1))

    def _set_aside(self, batch: Batch, error: str, then: OnFailure, now: float) -> None:
        place = batch.places[0]
        if then is OnFailure.PARK and self._parks:
            self._work.park(place, error, batch.attempt, batch)
            return
        self._skipped(self._work.window.event(place), error, batch.attempt)
        self._work.window.settle(batch.places)
        self._ledger.settle(1, now)
