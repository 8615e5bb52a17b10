"""The failure policy at work: what becomes of a delivery that was not handled.

Knows nothing of consumers, reads or saves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from headwater.storage.model import ALL, RecordedEvent
from headwater.subscriptions.core.batch import Batch
from headwater.subscriptions.core.breaker import Breaker
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
        self._at_least_once = options.delivery is Delivery.AT_LEAST_ONCE
        self._policy = options.retry
        self._limit = options.breaker
        self._most_held = options.max_in_flight // 2
        sole = options.source != ALL and options.partition_by in (None, "stream")
        self._breaker = Breaker(options.breaker, sole_key=options.source if sole else None)
        self._work = work
        self._ledger = ledger
        self._condition = condition
        self._random = random
        self._skipped = skipped
        self._halted = halted
        self._parks = parks
        self._last_error: str | None = None
        self._broken_off = False

    def success(self, now: float, keys: Iterable[str | None] = ()) -> None:
        """Note that something was handled, and of which keys."""
        self._breaker.handled(keys)
        if not self._broken_off:
            self._work.release_held()
        self._condition.relieve("handler", now)

    def reset(self) -> None:
        """Forget the failures in a row: an operator has resumed."""
        self._breaker.reset()
        self._broken_off = False
        self._work.release_held()

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

    def give_up_hopeless(self, batch: Batch, now: float) -> None:
        """Do that with a batch that is not delivered once more: the attempt that it would be now is none."""
        self.give_up(replace(batch, attempt=batch.attempt - 1), DIED, now)

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
        self._breaker.gave_up(len(batch.places))
        self._last_error = error
        self.look(now)

    def look(self, now: float) -> None:
        """Pause when nothing gets through any more; what would go behind then stays as it is, as far as it can."""
        self._breaker.fell_behind(self._work.fell_behind())
        untried = self._work.untried
        taken_out = self._breaker.count(untried=untried)
        if taken_out >= self._limit and not self._broken_off:
            self._broken_off = True
            reason = f"breaker: {taken_out} events in a row failed or wait behind one that did"
            if self._last_error is not None:
                reason += f": {self._last_error}"
            self._condition.become(Cause.PAUSE, reason, now)
            self._halted(Phase.PAUSED, reason)
        if self._may_hold and (self._broken_off or (untried and self._breaker.failing)):
            # While what is untried may tell that nothing gets through at all: it is parked when something does.
            self._work.hold_followers()
        elif not self._broken_off:
            self._work.release_held()

    @property
    def _may_hold(self) -> bool:
        """Whether events may stay unsettled in front of others that are delivered: no checkpoint rises with these."""
        room = self._broken_off or (self._work.suspect_to == 0 and self._work.held < self._most_held)
        return self._at_least_once and room

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
            self._breaker.blocked(self._work.park(place, error, batch.attempt, batch))
            return
        self._skipped(self._work.window.event(place), error, batch.attempt)
        self._work.window.settle(batch.places)
        self._ledger.settle(1, now)
