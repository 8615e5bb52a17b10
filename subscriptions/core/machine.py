"""What a subscription's partition does next: told one fact after the other, it returns what is to be done.

Does nothing itself: no I/O, no clock, no randomness of its own. The rules of order, retry, reading and saving stand in
the modules beside this one; this is where they meet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count
from typing import Any, Final

from headwater.storage.leases import Halt, Progress, Retried
from headwater.storage.model import ALL, EventPage, RecordedEvent
from headwater.subscriptions.core import effects, inputs
from headwater.subscriptions.core.batch import Batch
from headwater.subscriptions.core.condition import Condition
from headwater.subscriptions.core.failing import Failing
from headwater.subscriptions.core.ledger import Ledger
from headwater.subscriptions.core.phases import Cause, Phase, delivers
from headwater.subscriptions.core.reading import Reading
from headwater.subscriptions.core.retrying import Retrying
from headwater.subscriptions.core.rewinding import Rewinding
from headwater.subscriptions.core.saving import Saving
from headwater.subscriptions.core.seats import Seats
from headwater.subscriptions.core.sieve import Sieve
from headwater.subscriptions.core.work import Work
from headwater.subscriptions.options import Delivery, SubscriptionOptions

SPAN: Final = 16
"""A key that does not get on may hold the watermark back by so many times ``max_in_flight``; then reading waits."""

LATE: Final = "what was in flight did not end in time"
"""The reason of a drain that was ended by its time limit."""

PARK_AGAIN: Final = 1.0
"""So many seconds after it failed, parking is tried again."""


class Machine:
    """One partition under one grant.

    1. A delivery is in flight only after the durable progress says that it may be (its attempt is counted).
    2. The checkpoint never passes an event that is neither handled, skipped nor durably parked.
    3. A partition key is never with two consumers at once, and its events are delivered in order.
    4. Once finished, it asks for nothing more.
    5. An answer that nobody waits for changes nothing.
    """

    def __init__(
        self,
        options: SubscriptionOptions,
        grant: inputs.Granted,
        sieve: Sieve,
        *,
        consumers: Iterable[int],
        random: Callable[[], float],
        now: float,
        parks: bool = True,
    ) -> None:
        """Without ``parks``, what would be parked is skipped."""
        self.condition = Condition()
        self.wake_at: float | None = None
        """When to give a Tick, if nothing else happens before."""
        self.rewinds = 0
        """How many rewinds are durable under this grant."""
        self._options = options
        self._sieve = sieve
        self._random = random
        self._parallel = options.most_consumers > 0
        self._transactional = options.delivery is Delivery.EXACTLY_ONCE
        self._parks = parks
        self._out: list[effects.Effect] = []
        self._ids = count(1)
        self._seats = Seats(consumers, now)
        self._retrying = Retrying()
        self._parked_before = 0
        self._waiting: Batch | None = None
        self._unknown: list[tuple[Batch, inputs.Failed]] = []
        self._reloading = False
        self._park_not_before = now
        self._drain_by: float | None = None
        self._taking_back = False
        self._settled_at = float("-inf")
        self._rewinding = Rewinding()
        self._reading = Reading(now, poll_interval=options.poll_interval.total_seconds())
        self._halts = 0
        self._halted = grant.halt is not None
        """Whether it is, or was, stopped until an operator resumes it, and that it goes on is not said yet."""
        self._halting = 0
        """How many of the numbered writes about that are under way."""
        progress = grant.progress
        if grant.halt is not None:
            # Who resumes lets attempts count anew: what was begun before ended by the stop, and not by the handler.
            progress = replace(progress, attempt=0)
        self._ledger = Ledger(
            progress, every=options.checkpoint_events, interval=options.checkpoint_interval.total_seconds()
        )
        self._start_at(progress.checkpoint)
        self._work.blocked.update(grant.parked_keys)
        if progress.in_flight_to > progress.checkpoint and options.delivery is not Delivery.AT_MOST_ONCE:
            self._work.suspect(progress.in_flight_to, progress.attempt + 1)
        self.condition.become(Cause.GRANTED, None, now)
        if grant.halt is not None and grant.halt.phase is None:
            self._go_on()
        elif grant.halt is not None:
            cause = Cause.GIVE_UP if grant.halt.phase == Phase.FAILED.value else Cause.PAUSE
            self.condition.become(cause, grant.halt.reason, now - grant.halt.age)

    def react(self, fact: inputs.Input, now: float) -> list[effects.Effect]:
        """Take in one fact; returns what is to be done now, in this order. A finished machine answers nothing."""
        if self.condition.phase is Phase.FINISHED:
            return []
        getattr(self, _METHODS[type(fact)])(fact, now)
        self._plan(now)
        out, self._out = self._out, []
        return out

    # What can be asked at any time.

    @property
    def checkpoint(self) -> int:
        """The saved number up to which everything is settled."""
        return self._ledger.durable.checkpoint

    @property
    def watermark(self) -> int:
        """The number up to which everything is settled, saved or not."""
        return self._work.window.watermark

    @property
    def unpassed(self) -> int:
        """Up to where the checkpoint does not tell all that earlier partitions had settled; 0 when it does."""
        return self._sieve.unpassed(self.checkpoint)

    @property
    def head(self) -> int:
        """The source's head, as the last read said."""
        return self._reading.head

    @property
    def in_flight(self) -> int:
        """How many events are delivered and undecided."""
        return self._retrying.in_flight + sum(len(batch) for batch, _ in self._work.in_flight.values())

    def awaits(self, delivery_id: int) -> bool:
        """Whether a delivery is in flight, and nobody has said how it ended."""
        return delivery_id in self._work.in_flight or self._retrying.holds(delivery_id)

    @property
    def unsettled(self) -> int:
        """How many events are held in memory: read and not settled."""
        return self._work.window.unsettled

    @property
    def blocked_keys(self) -> frozenset[str]:
        """The keys with parked events."""
        return frozenset(self._work.blocked)

    @property
    def parked(self) -> int:
        """How many events were durably parked under this grant."""
        return self._parked_before + self._work.parked

    @property
    def retrying(self) -> bool:
        """Whether parked events are still to be handled again."""
        return bool(self._retrying)

    @property
    def rewinding(self) -> bool:
        """Whether a rewind waits to be made, or is being made."""
        return self._rewinding.wanted or self._rewinding.saving

    @property
    def catching_up(self) -> bool:
        """Whether stored events are known that were not read yet."""
        return self._work.window.read_to < self._reading.head

    @property
    def waiting(self) -> bool:
        """Whether there are events that no consumer has yet."""
        return self.catching_up or self.unsettled > self.in_flight

    def holds(self, consumer: int) -> bool:
        """Whether a consumer is still here: one that retires is until it has answered."""
        return self._seats.holds(consumer)

    def worked(self, now: float) -> float:
        """Return for how many seconds, of all consumers together, deliveries were under way."""
        return self._seats.worked(now)

    @property
    def at_capacity(self) -> bool:
        """Whether reading waits because too much is unsettled."""
        return self._room() < self._page_size() / 2

    # Facts.

    def _on_nothing(self, fact: inputs.Input, now: float) -> None:
        pass

    def _on_head(self, fact: inputs.HeadSeen, now: float) -> None:  # noqa: ARG002
        if self._options.source != ALL or fact.head > self._work.window.read_to:
            self._reading.wanted = True

    def _on_page(self, fact: inputs.PageRead, now: float) -> None:
        if not self._reading.ended(fact.read_id):
            return
        self.condition.relieve("read", now)
        page, window = fact.page, self._work.window
        known = self._ledger.stream_id
        self._look_for_source(page, now)
        if page.stream_id is not None and page.stream_id != known:
            if known is not None:
                self._rewinding.made_anew(page.stream_id)
                return
            self._ledger.stream_id = page.stream_id
        before, moved = window.watermark, page.read_to > window.read_to
        faults = self._work.admit(page)
        self._reading.brought(moved=moved, read_to=page.read_to, head=page.head)
        if window.watermark > before:
            self._ledger.settle(0, now)
        for place, error in faults:
            self._failing.give_up(Batch((place,)), error, now)
        self._failing.look(now)

    def _look_for_source(self, page: EventPage, now: float) -> None:
        """Tell operators when there is nothing to read because the stream is deleted, and when it is there again."""
        source = self._options.source
        if page.absent == "deleted":
            self.condition.trouble(
                "source", f"the stream {source!r} is soft-deleted: undelete it, or delete the subscription", now
            )
        elif page.absent == "missing" and self._ledger.stream_id is not None:
            gone = (
                f"the stream {source!r} was deleted for good: what is appended to a new one of that name is delivered"
            )
            self.condition.trouble("source", gone, now)
        else:
            self.condition.relieve("source", now)

    def _on_read_failed(self, fact: inputs.ReadFailed, now: float) -> None:
        if self._reading.ended(fact.read_id):
            self._reading.failed(now)
            self.condition.trouble("read", f"reading failed: {fact.error}", now)

    def _on_handled(self, fact: inputs.Handled, now: float) -> None:
        if self._retried(fact.delivery_id, None, now):
            return
        if fact.numbers is not None and self._keeps_some(fact.delivery_id, fact.numbers, now):
            return
        batch = self._answered(fact.delivery_id, now)
        if batch is None:
            return
        if batch.commit is not None:
            self._ledger.committed(batch.commit, now)
        self._failing.success(now, self._work.some_keys(batch))
        self._settle(batch, now)

    def _on_failed(self, fact: inputs.Failed, now: float) -> None:
        if self._retried(fact.delivery_id, fact.error, now, lost=fact.lost):
            return
        batch = self._answered(fact.delivery_id, now, lost=fact.lost)
        if batch is None:
            return
        if batch.commit is not None:
            # Whether the handler's transaction was committed is not certain: the durable progress tells.
            self._unknown.append((batch, fact))
        else:
            self._failing.failure(
                batch, fact.error, mendable=fact.mendable, now=now, then=fact.then, policy=fact.policy
            )

    def _on_joined(self, fact: inputs.Joined, now: float) -> None:  # noqa: ARG002
        self._seats.join(fact.consumer)

    def _on_retired(self, fact: inputs.Retired, now: float) -> None:  # noqa: ARG002
        self._seats.retire(fact.consumer)

    def _on_awaited(self, fact: inputs.Awaited, now: float) -> None:
        reason = f"consumer {fact.consumer} has ended, and no other can be made ready in its place yet"
        self.condition.trouble(f"consumer {fact.consumer}", reason, now)

    def _on_arrived(self, fact: inputs.Arrived, now: float) -> None:
        self.condition.relieve(f"consumer {fact.consumer}", now)

    def _on_left(self, fact: inputs.Left, now: float) -> None:
        self._seats.leave(fact.consumer, now)
        self._retrying.left(fact.consumer)
        left = [number for number, (_, holder) in self._work.in_flight.items() if holder == fact.consumer]
        for delivery_id in reversed(left):
            batch, _ = self._work.in_flight.pop(delivery_id)
            batch.gather()
            if self._options.delivery is Delivery.AT_MOST_ONCE:
                self._left(batch, fact.taken, now)
            else:
                # What nobody has seen was no attempt.
                events = self._work.events(batch)
                seen = fact.taken is None or any(event.number in fact.taken for event in events)
                self._work.put_back(replace(batch, attempt=batch.attempt + 1) if seen else batch)

    def _on_reloaded(self, fact: inputs.Reloaded, now: float) -> None:
        self._reloading = False
        self.condition.relieve("save", now)
        unknown, self._unknown = self._unknown, []
        for batch, failure in unknown:
            if fact.progress.checkpoint >= self._work.window.event(batch.places[-1]).number:
                self._ledger.committed(replace(fact.progress, delivered=0, redelivered=0), now)
                self._settle(batch, now)
            else:
                self._failing.failure(
                    batch,
                    failure.error,
                    mendable=failure.mendable,
                    now=now,
                    then=failure.then,
                    policy=failure.policy,
                )

    def _on_saved(self, fact: inputs.Saved, now: float) -> None:  # noqa: ARG002
        self._ledger.saved(now)
        if self._rewinding.saving:
            self._rewinding.saved()
            self._retrying.clear()
            self.rewinds += 1
        self.condition.relieve("save", now)

    def _on_save_failed(self, fact: inputs.SaveFailed, now: float) -> None:
        self._rewinding.failed(self._work.window.read_to)
        self._reloading = False
        self._ledger.failed(now)
        self.condition.trouble("save", f"saving the checkpoint failed: {fact.error}", now)

    def _on_parked(self, fact: inputs.Parked, now: float) -> None:
        places = self._work.end_parking(fact.token)
        if places:
            self._work.window.settle(places)
            self._ledger.settle(len(places), now)
            self.condition.relieve("park", now)

    def _on_park_failed(self, fact: inputs.ParkFailed, now: float) -> None:
        if self._work.parking_failed(fact.token):
            self._park_not_before = now + PARK_AGAIN
            self.condition.trouble("park", f"parking failed: {fact.error}", now)

    def _on_halt_written(self, fact: inputs.HaltWritten, now: float) -> None:  # noqa: ARG002
        self._halting -= 1

    def _on_lease_lost(self, fact: inputs.LeaseLost, now: float) -> None:
        self.condition.become(Cause.LEASE_LOST, fact.reason, now)

    def _on_pause(self, fact: inputs.Pause, now: float) -> None:
        self.condition.become(Cause.PAUSE, fact.reason, now)

    def _on_resume(self, fact: inputs.Resume, now: float) -> None:  # noqa: ARG002
        self._failing.reset()
        self.condition.become(Cause.RESUME, None, now)
        if self._halted:
            self._go_on()

    def _on_drain(self, fact: inputs.Drain, now: float) -> None:
        if self._drain_by is None:
            self._drain_by = now + self._options.drain_timeout.total_seconds()
        self.condition.become(Cause.DRAIN, fact.reason, now)

    def _on_rewind(self, fact: inputs.Rewind, now: float) -> None:  # noqa: ARG002
        self._rewinding.ask(fact.to, side_effects=fact.side_effects, command=fact.command)

    def _on_withdrawn(self, fact: inputs.Withdrawn, now: float) -> None:
        consumer = self._retrying.withdrawn(fact.delivery_id)
        if consumer is not None:
            self._seats.give_back(consumer, now, lost=False)

    def _on_retry_written(self, fact: inputs.RetryWritten, now: float) -> None:  # noqa: ARG002
        self._retrying.written(fact.position)

    def _on_retry_parked(self, fact: inputs.RetryParked, now: float) -> None:  # noqa: ARG002
        if fact.as_of == self.rewinds:
            self._retrying.add(fact.retries)

    def _on_keys_freed(self, fact: inputs.KeysFreed, now: float) -> None:  # noqa: ARG002
        if fact.as_of == self.parked:
            self._work.free(fact.keys)

    # Helpers of the facts.

    def _left(self, batch: Batch, taken: frozenset[int] | None, now: float) -> None:
        window = self._work.window
        seen = [place for place in batch.places if taken is None or window.event(place).number in taken]
        if not seen:
            self._work.put_back(batch)
            return
        rest = [place for place in batch.places if place not in seen]
        batch.places, batch.rest = tuple(seen), deque(rest)
        self._failing.failure(batch, "the consumer has left", mendable=False, now=now)

    def _start_at(self, number: int) -> None:
        options = self._options
        self._work = Work(self._sieve, start=number, parallel=self._parallel, batch_size=options.batch_size)
        self._saving = Saving(options, self._ledger, self._work)
        self._failing = Failing(
            options,
            self._work,
            self._ledger,
            self.condition,
            self._random,
            self._skipped,
            self._halt,
            parks=self._parks,
        )

    def _halt(self, phase: Phase, reason: str) -> None:
        """Let it be written down that it is stopped, also for the owners after this one: the first reason stays."""
        if not self._halted:
            self._halted = True
            self._say_halt(Halt(phase.value, reason))

    def _go_on(self) -> None:
        self._halted = False
        self._say_halt(None)

    def _say_halt(self, halt: Halt | None) -> None:
        self._halts += 1
        self._halting += 1
        self._out.append(effects.Halt(self._halts, halt))

    def _skipped(self, event: RecordedEvent, error: str, attempts: int) -> None:
        self._out.append(effects.Skipped(event, error, attempts))

    def _retried(self, delivery_id: int, error: str | None, now: float, *, lost: bool = False) -> bool:
        found = self._retrying.answered(delivery_id, handled=error is None)
        if found is None:
            return False
        retry, consumer = found
        self._seats.give_back(consumer, now, lost=lost)
        if error is None:
            self._failing.success(now)
        self._out.append(effects.Retry(retry.event.position, retry.key, error))
        return True

    def _answered(self, delivery_id: int, now: float, *, lost: bool = False) -> Batch | None:
        found = self._work.in_flight.pop(delivery_id, None)
        if found is None:
            self._out.append(effects.Refuse(delivery_id))
            return None
        batch, consumer = found
        batch.gather()
        self._seats.give_back(consumer, now, lost=lost)
        return batch

    def _keeps_some(self, delivery_id: int, numbers: frozenset[int], now: float) -> bool:
        """Settle a part of a delivery; False when that was the last of it, or it is not in flight."""
        batch, _ = self._work.in_flight.get(delivery_id, (None, 0))
        if batch is None:
            return False
        keys = self._work.some_keys(batch) if batch.parts is None else ()
        settled = self._work.settle_part(batch, numbers)
        if settled:
            self._failing.success(now, keys)
            self._ledger.settle(settled, now)
        else:
            self._out.append(effects.Refuse(delivery_id))
        return len(batch) > 0

    def _settle(self, batch: Batch, now: float) -> None:
        self._work.window.settle(batch.places)
        self._ledger.settle(len(batch.places), now)
        self._settled_at = now
        self._work.leave(batch)

    # The plan: what follows from everything that is known now.

    def _plan(self, now: float) -> None:
        self.wake_at = None
        if self.condition.phase is not Phase.FINISHED:
            self._plan_rewind(now)
            self._plan_deliveries(now)
            self._plan_parking(now)
            self._plan_save(now)
            self._plan_read(now)
            self._plan_end(now)
        if self.condition.changed:
            self.condition.changed = False
            self._out.append(effects.Report(self.condition.phase, self.condition.reason))

    def _wake(self, at: float) -> None:
        if self.wake_at is None or at < self.wake_at:
            self.wake_at = at

    def _plan_rewind(self, now: float) -> None:
        busy = self._work or self._unknown or self._retrying.busy or self._ledger.saving is not None
        if not self._rewinding.wanted or busy:
            return  # while draining it is still made, for the next owner
        if now < self._ledger.not_before:
            self._wake(self._ledger.not_before)
            return
        number = self._rewinding.begin(self.watermark)
        blocked = self._work.blocked
        self._sieve = self._sieve.without_seam()
        self._parked_before += self._work.parked
        self._start_at(number)
        self._work.blocked = blocked
        self._reading.restart()
        self._waiting = None
        if self._rewinding.stream_id is not None:
            self._ledger.stream_id = self._rewinding.stream_id
        self._out.append(self._rewinding.save(self._ledger.begin(Progress(number, number))))

    def _may_deliver(self) -> bool:
        return delivers(self.condition.phase) and not (self.rewinding or self._unknown)

    def _owes(self) -> bool:
        """Whether something must still be delivered though nothing more may be begun: the checkpoint has passed it."""
        held = self.rewinding or self._taking_back
        return self.condition.phase in (Phase.PAUSED, Phase.DRAINING) and self._saving.ahead and not held

    def _plan_deliveries(self, now: float) -> None:
        self._waiting = None
        work = self._work
        rested_at = self._seats.wake(now)
        if rested_at is not None:
            self._wake(rested_at)
        self._plan_retry(now)
        while self._seats and (self._may_deliver() or self._owes()):
            batch = work.next(now)
            if batch is None:
                break
            if self._failing.hopeless(batch):
                self._failing.give_up_hopeless(batch, now)
                continue
            if self._saving.must_wait(batch):
                work.put_back(batch)
                break
            if not self._saving.cleared(batch):
                work.put_back(batch)
                if self._may_deliver():
                    self._waiting = batch
                break
            self._deliver(batch, now)
        if work.next_attempt_at is not None and self._seats and self._may_deliver() and self._waiting is None:
            self._wake(work.next_attempt_at)

    def _plan_retry(self, now: float) -> None:
        alone = self._work.exclusive and self._work.in_flight
        # An at-most-once checkpoint may have passed what is still to be parked again here.
        retry = self._retrying.next(min(self._ledger.durable.checkpoint, self.watermark))
        if retry is None or not self._seats or alone or not self._may_deliver():
            return
        delivery_id, consumer = next(self._ids), self._seats.take(now)
        self._retrying.begin(delivery_id, consumer)
        commit = Retried(retry.event.position, retry.key) if self._transactional else None
        self._out.append(effects.Deliver(delivery_id, consumer, [retry.event], retry.attempts + 1, commit, parked=True))

    def _deliver(self, batch: Batch, now: float) -> None:
        delivery_id, consumer = next(self._ids), self._seats.take(now)
        self._saving.delivered(batch, now)
        batch.commit = self._saving.commit(batch)
        self._work.in_flight[delivery_id] = batch, consumer
        events = self._work.events(batch)
        self._out.append(effects.Deliver(delivery_id, consumer, events, batch.attempt, batch.commit))

    def _plan_parking(self, now: float) -> None:
        if not self._work.to_park:
            return
        if now < self._park_not_before:
            self._wake(self._park_not_before)
            return
        self._out.append(effects.Park(*self._work.begin_parking()))

    def _plan_save(self, now: float) -> None:
        ledger = self._ledger
        if ledger.saving is not None or self._rewinding.saving or self._reloading or self._taking_back:
            return
        if self._unknown:
            if now < ledger.not_before:
                self._wake(ledger.not_before)
            else:
                self._reloading = True
                self._out.append(effects.Reload())
            return
        due = ledger.not_before if self._waiting is not None else self._saving.due_at()
        if due is None:
            return
        if now < due and not (now == self._settled_at and self._saving.soon(now)):
            self._wake(due)
            return
        wanted = self._saving.before(self._waiting) if self._waiting is not None else self._saving.now_and_then(now)
        durable = self._options.delivery is Delivery.AT_MOST_ONCE
        self._out.append(effects.Save(ledger.begin(wanted), durable=durable))

    def _plan_read(self, now: float) -> None:
        if self._reading.current is not None or not self._may_deliver():
            return
        limit = min(self._room(), self._page_size())
        if limit < self._page_size() / 2:
            return
        due = self._reading.due_at(now)
        if now < due:
            self._wake(due)
            return
        self._out.append(effects.Read(self._reading.begin(now), self._work.window.read_to, limit))

    def _page_size(self) -> int:
        return min(self._options.read_size, self._options.max_in_flight)

    def _room(self) -> int:
        most, window = self._options.max_in_flight, self._work.window
        return min(most - window.unsettled, most * SPAN - window.span)

    def _plan_end(self, now: float) -> None:
        if self._drain_by is None:
            return
        if now >= self._drain_by:
            self.condition.become(Cause.DRAINED, LATE, now)
            return
        self._wake(self._drain_by)
        busy = self._work or self._unknown or self._retrying.busy or self._ledger.saving is not None
        if busy or self._rewinding.wanted or self._halting:
            return
        durable = self._ledger.durable
        last, ahead = self._saving.last(), self._saving.ahead
        if ahead or durable.checkpoint < last.checkpoint or durable.in_flight_to > last.in_flight_to:
            if now < self._ledger.not_before:
                self._wake(self._ledger.not_before)
                return
            # What may come again from now on is the next owner's, however late this save takes effect.
            self._taking_back = ahead
            self._out.append(effects.Save(self._ledger.begin(last), back=ahead))
            return
        self.condition.become(Cause.DRAINED, self.condition.reason, now)


_METHODS: Final[dict[type[Any], str]] = {
    inputs.HeadSeen: "_on_head",
    inputs.Tick: "_on_nothing",
    inputs.PageRead: "_on_page",
    inputs.ReadFailed: "_on_read_failed",
    inputs.Handled: "_on_handled",
    inputs.Failed: "_on_failed",
    inputs.Joined: "_on_joined",
    inputs.Retired: "_on_retired",
    inputs.Left: "_on_left",
    inputs.Awaited: "_on_awaited",
    inputs.Arrived: "_on_arrived",
    inputs.Reloaded: "_on_reloaded",
    inputs.Saved: "_on_saved",
    inputs.SaveFailed: "_on_save_failed",
    inputs.Parked: "_on_parked",
    inputs.ParkFailed: "_on_park_failed",
    inputs.HaltWritten: "_on_halt_written",
    inputs.LeaseLost: "_on_lease_lost",
    inputs.Pause: "_on_pause",
    inputs.Resume: "_on_resume",
    inputs.Drain: "_on_drain",
    inputs.Rewind: "_on_rewind",
    inputs.RetryParked: "_on_retry_parked",
    inputs.RetryWritten: "_on_retry_written",
    inputs.Withdrawn: "_on_withdrawn",
    inputs.KeysFreed: "_on_keys_freed",
}
"""What takes in which fact; an input that is not listed is a defect of the caller."""
