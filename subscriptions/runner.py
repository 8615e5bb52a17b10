"""The thin shell around the core: performs its effects against the ports and tells it what came of them.

Decides nothing. Use it like this::

    runner = SubscriptionRunner(options, grant, reader=..., leases=..., checkpoints=..., consumers=[...], heads=...)
    ending = await runner.run()      # returns when drained, stopped, or when the lease is lost
    runner.drain(); runner.pause("why"); runner.resume(); runner.rewind(0); runner.stop(); runner.status
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeGuard

from headwater.storage.errors import StaleEpoch, StoreUnavailable, unpassed
from headwater.storage.leases import Grant
from headwater.subscriptions.boundaries import BoundedReader
from headwater.subscriptions.core import effects, inputs
from headwater.subscriptions.core.machine import Machine
from headwater.subscriptions.core.phases import Phase
from headwater.subscriptions.core.sieve import Sieve
from headwater.subscriptions.heads import Heads
from headwater.subscriptions.keys import sieve_of
from headwater.subscriptions.observer import Observer, Status
from headwater.subscriptions.options import Delivery, SubscriptionOptions
from headwater.subscriptions.ports import (
    Boundaries,
    Checkpoints,
    Clock,
    Consumer,
    ConsumerLost,
    Delivered,
    EventReader,
    Halt,
    Leases,
    Nack,
    Parking,
    Replaceable,
    Unmendable,
)
from headwater.subscriptions.raised import described, original
from headwater.subscriptions.retries import ParkedRetries

logger = logging.getLogger("headwater.subscriptions")

RENEWAL_CHECK = 0.05
"""How often a delivery that waits for the lease to be renewed looks again, in seconds."""

LOSS_CHECK = 2.0
"""How often an idle partition asks whether its lease is lost, in seconds, beside being told when the session ends."""

READY_SOON = 1.0
"""After so many seconds without a consumer operators are told that a delivery waits for one."""

STUBBORN = 5.0
"""How long what was cancelled may take to end before it is left behind, in seconds."""

OUTAGE_PAUSE = 0.25
"""How long until what the database refused is tried again, in seconds."""


class MonotonicClock:
    """The process's own clock."""

    def monotonic(self) -> float:
        return time.monotonic()


class SubscriptionRunner:
    """Runs one partition under one grant, on the current event loop.

    1. Nothing is handed to a consumer at or after ``leases.valid_until``, nor after the lease is lost.
    2. When ``run`` has returned, nothing of this grant is under way in this process any more, but handlers that pay no
       heed to being cancelled: threads at once, coroutines after ``STUBBORN``.
    3. The consumers stay open: they belong to the caller.
    """

    def __init__(
        self,
        options: SubscriptionOptions,
        grant: Grant,
        *,
        reader: EventReader,
        leases: Leases,
        checkpoints: Checkpoints,
        consumers: Sequence[Consumer],
        present: Iterable[int] | None = None,
        parking: Parking | None = None,
        boundaries: Boundaries | None = None,
        heads: Heads | None = None,
        sieve: Sieve | None = None,
        observer: Observer | None = None,
        clock: Clock | None = None,
        random: Callable[[], float] = random.random,
        parks: bool = True,
    ) -> None:
        """Without ``parks``, what would be parked is skipped."""
        self._options = options
        self._grant = grant
        self._bounded = None if boundaries is None else BoundedReader(reader, boundaries, grant, self._settled)
        self._reader = reader if self._bounded is None else self._bounded
        # Parked events were passed before and are found by position, whatever the source counts in: no boundary counts.
        self._parked_reader = reader
        self._leases = leases
        self._checkpoints = checkpoints
        self._writes = count(1)
        self._consumers = list(consumers)
        self._present = tuple(range(len(consumers)) if present is None else present)
        self._parking = parking
        self._retries: ParkedRetries | None = None
        self._heads = heads
        self._sieve = sieve if sieve is not None else sieve_of(options, grant.key.partition, grant.seam)
        self._observer = observer if observer is not None else Observer()
        self._clock = clock if clock is not None else MonotonicClock()
        self._random = random
        self._parks = parks
        self._machine: Machine | None = None
        self._early: list[inputs.Input] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._answered: set[int] = set()
        self._finished = asyncio.Event()
        self._over = False
        """Whether ``run`` ends: what it is told from now on begins nothing any more."""
        self._to_report: effects.Report | None = None
        """What operators were not told yet: the last word only."""
        self._reported: asyncio.Task[None] | None = None
        self._halting: asyncio.Task[None] | None = None

    async def run(self) -> Status:
        """Run until drained or stopped, or until the lease is lost; returns the last status, with the reason.

        Raises what no retry can mend: a defect, never an error of the handler or an outage. Cancelling it is safe: what
        was in flight is delivered again by the next owner.
        """
        try:
            parked_keys, halt = await self._look()
        except StaleEpoch as error:
            return self._status(Phase.FINISHED, str(error))
        now = self._clock.monotonic()
        granted = inputs.Granted(self._grant.progress, frozenset(parked_keys), halt)
        self._machine = Machine(
            self._options,
            granted,
            self._sieve,
            consumers=self._present,
            random=self._random,
            now=now,
            parks=self._parks,
        )
        unlisten = self._heads.listen(self._head_seen) if self._heads is not None else None
        self._start(self._watch_lease())
        if self._parking is not None:
            self._retries = self._make_retries(self._parking, self._machine)
            self._start(self._retries.run())
        try:
            self._tell(inputs.Tick())
            for fact in self._early:
                self._tell(fact)
            await self._finished.wait()
            if self._reported is not None and self._machine.condition.phase is Phase.FINISHED:
                await asyncio.wait([self._reported], timeout=STUBBORN)  # a database that refuses it holds nobody up
            return self.status
        finally:
            self._over = True
            if unlisten is not None:
                unlisten()
            if self._timer is not None:
                self._timer.cancel()
            if left := await _end(tuple(self._tasks)):
                names = (self._grant.key.subscription, self._grant.key.partition)
                logger.error("%s/%d leaves %d handlers behind that go on although they were cancelled", *names, left)
            self._raise_defects()

    async def _look(self) -> tuple[Collection[str], Halt | None]:
        """Learn what must be known before anything is read, until the database answers: parked keys, an earlier stop.

        Raises StaleEpoch, also when the lease is lost meanwhile.
        """
        while True:
            try:
                keys, halt, _ = await asyncio.gather(
                    self._checkpoints.parked_keys(self._grant),
                    self._checkpoints.halted(self._grant),
                    _nothing() if self._bounded is None else self._bounded.look(),
                )
                return keys, halt
            except StoreUnavailable as error:
                self._observer.trouble(self._grant.key, "begin", error)
            await self._rest_in_outage()

    def _make_retries(self, parking: Parking, machine: Machine) -> ParkedRetries:
        return ParkedRetries(
            lambda: self._grant,
            machine,
            self._tell,
            parking=parking,
            checkpoints=self._checkpoints,
            reader=self._parked_reader,
            observer=self._observer,
            interval=self._options.poll_interval.total_seconds(),
            attempts=1 if self._options.delivery is Delivery.AT_MOST_ONCE else self._options.retry.attempts,
        )

    # What operators ask for; all of it may be asked before ``run``, and again.

    def drain(self, reason: str = "drained") -> None:
        """Deliver nothing more; finish what is in flight, save, and let ``run`` return."""
        self._tell(inputs.Drain(reason))

    def stop(self, reason: str = "stopped") -> None:
        """Let ``run`` return at once; what is in flight is abandoned and delivered again by the next owner."""
        self._tell(inputs.LeaseLost(reason))

    def pause(self, reason: str) -> None:
        """Deliver nothing more until resumed."""
        self._tell(inputs.Pause(reason))

    def resume(self) -> None:
        """Go on after a pause, a tripped breaker or a stop by the failure policy."""
        self._tell(inputs.Resume())

    def rewind(self, to: int, *, side_effects: bool = True, command: int | None = None) -> None:
        """Begin again after number ``to``, also to skip forward, as soon as nothing is in flight.

        What was settled before is handed out as a replay, during which ``side_effects`` may be off. The ``command``
        that asked for it counts as obeyed when the rewind is durable; telling it again changes nothing. Raises
        SubscriptionConflict below what earlier sets of partitions had settled, until the checkpoint has passed that:
        no one number tells replays from new events there.
        """
        machine = self._machine
        end = self._sieve.unpassed(self._grant.progress.checkpoint) if machine is None else machine.unpassed
        if to < end:
            raise unpassed(self._grant.key.subscription, end)
        self._tell(inputs.Rewind(to, side_effects, command))

    def join(self, index: int, consumer: Consumer) -> None:
        """Give the seat of this index to a consumer that was not there before."""
        self._consumers[index] = consumer
        self._tell(inputs.Joined(index))

    def retire(self, index: int) -> None:
        """Give the consumer of this index nothing more; ``holds`` says whether it is still at work."""
        self._tell(inputs.Retired(index))

    def holds(self, index: int) -> bool:
        """Whether the consumer of this index is here, free or at work."""
        return self._machine is not None and self._machine.holds(index)

    def load(self) -> tuple[float, bool]:
        """Return for how many seconds all consumers together have worked, and whether events wait for one of them."""
        if self._machine is None:
            return 0.0, False
        return self._machine.worked(self._clock.monotonic()), self._machine.waiting

    def leave(self, index: int, *, taken: frozenset[int] | None = None) -> None:
        """Give the consumer of this index nothing more; what it has in flight goes to others.

        ``taken`` are the numbers of those events that the user's code may have seen, None when that may be all: an
        at-most-once delivery of them is not made again.
        """
        self._tell(inputs.Left(index, taken))

    def answer(self, answer: inputs.Handled | inputs.Failed) -> None:
        """Take a consumer's answer at once, before its ``handle`` returns: what was acknowledged stays so."""
        if isinstance(answer, inputs.Failed) or answer.numbers is None:
            self._answered.add(answer.delivery_id)
        self._tell(answer)

    def retry_parked(self) -> None:
        """Look now, and not only every so often, for parked events that are to be handled again."""
        if self._retries is not None:
            self._retries.ask()

    @property
    def grant(self) -> Grant:
        """The right under which this runs, with the rewinds that were begun under it."""
        return self._grant

    @property
    def status(self) -> Status:
        """What the partition is doing now."""
        if self._machine is None:
            return self._status(Phase.NEW, None)
        condition = self._machine.condition
        return self._status(condition.phase, condition.reason)

    def _numbered(self) -> Grant:
        """Return the grant for one write: what is given up, and comes late, undoes nothing that was written since."""
        return self._grant.numbered(next(self._writes))

    def _settled(self) -> int:
        return 0 if self._machine is None else self._machine.watermark

    def _status(self, phase: Phase, reason: str | None) -> Status:
        machine, start = self._machine, self._grant.progress.checkpoint
        if machine is None:
            return Status(phase, reason, datetime.now(UTC), start, start, start, 0, 0, False, False)
        elapsed = timedelta(seconds=self._clock.monotonic() - machine.condition.since)
        return Status(
            phase=phase,
            reason=reason,
            since=datetime.now(UTC) - elapsed,
            checkpoint=machine.checkpoint,
            watermark=machine.watermark,
            head=machine.head,
            in_flight=machine.in_flight,
            unsettled=machine.unsettled,
            catching_up=machine.catching_up,
            at_capacity=machine.at_capacity,
        )

    # Facts in, effects out.

    def _head_seen(self, head: int) -> None:
        self._tell(inputs.HeadSeen(head))

    def _tell(self, fact: inputs.Input) -> None:
        if self._machine is None:
            self._early.append(fact)
            return
        if self._over:
            # A handler that goes on although it was cancelled: its events are delivered again by the next owner.
            return
        for effect in self._machine.react(fact, self._clock.monotonic()):
            self._perform(effect)
        if self._machine.condition.phase is Phase.FINISHED:
            self._finished.set()
        self._set_timer(self._machine.wake_at)

    def _perform(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Deliver():
                delivering = self._start(self._deliver(effect))
                delivering.add_done_callback(functools.partial(self._delivered, effect.delivery_id))
            case effects.Read():
                self._start(self._read(effect))
            case effects.Save():
                self._start(self._save(effect))
            case effects.Park():
                self._start(self._park(effect))
            case effects.Reload():
                self._start(self._reload())
            case effects.Halt():
                self._halting = self._start(self._halt(effect, self._halting))
            case effects.Report():
                self._observer.status_changed(self._grant.key, self.status)
                self._to_report = effect
                if self._reported is None or self._reported.done():
                    self._reported = self._start(self._report())
            case effects.Skipped():
                self._observer.skipped(self._grant.key, effect.event, effect.error, effect.attempts)
            case effects.Retry():
                if self._retries is not None:
                    self._start(self._retries.write(effect))
            case effects.Refuse():
                self._observer.refused(self._grant.key, effect.delivery_id)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            self._tasks.discard(task)
        else:
            # A defect: it is kept, and raised by ``run``.
            self._finished.set()

    def _raise_defects(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _set_timer(self, at: float | None) -> None:
        if at == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at, self._timer = at, None
        if at is not None and not self._finished.is_set():
            wait = max(0.0, at - self._clock.monotonic())
            self._timer = asyncio.get_running_loop().call_later(wait, self._wake)

    def _wake(self) -> None:
        self._timer_at = self._timer = None
        self._tell(inputs.Tick())

    # Effects.

    async def _read(self, effect: effects.Read) -> None:
        options, begun = self._options, self._clock.monotonic()
        try:
            page = await self._reader.read_page(options.source, effect.after, effect.limit, where=options.where)
        except StaleEpoch as error:
            self._tell(inputs.LeaseLost(str(error)))
            return
        except Exception as error:  # noqa: BLE001  # whatever it is, reading is tried again, and the reason is shown
            self._observer.trouble(self._grant.key, "read", error)
            self._tell(inputs.ReadFailed(effect.read_id, repr(error)))
            return
        self._observer.page_read(self._grant.key, page, self._clock.monotonic() - begun)
        self._tell(inputs.PageRead(effect.read_id, page))

    async def _deliver(self, effect: effects.Deliver) -> None:
        if not await self._lease_holds():
            self._tell(inputs.LeaseLost("the lease may have passed on"))
            return
        if effect.parked:
            found = await self._begin_retry(effect)
            if found is None:
                return
            if not await self._lease_holds():  # counting it may have taken long
                self._tell(inputs.LeaseLost("the lease may have passed on"))
                return
            effect = found
        if not self._awaits(effect.delivery_id):
            return  # it was taken back before it was handed over, and somebody else may sit in that place by now
        key, observer, begun = self._grant.key, self._observer, self._clock.monotonic()
        replaying, side_effects = False, True
        if self._bounded is not None and not effect.parked:
            boundary = self._bounded.boundary
            replaying = effect.events[-1].number <= boundary.until
            side_effects = boundary.side_effects or not replaying
        grant = self._grant
        if effect.parked and self._retries is not None:
            # To settle it in the handler's transaction is a write like another.
            grant = self._retries.numbered(grant)
        delivery = Delivered(
            effect.delivery_id, effect.events, effect.attempt, grant, effect.commit, replaying, side_effects
        )
        observer.delivered(key, delivery)
        try:
            await self._handle_when_possible(effect.consumer, delivery)
        except StaleEpoch as error:
            self._tell(inputs.LeaseLost(str(error)))
        except (Exception, asyncio.CancelledError, SystemExit) as raised:  # a handler may raise anything
            if isinstance(raised, asyncio.CancelledError) and await self._is_cancelled():
                raise
            if effect.delivery_id not in self._answered and not self._awaits(effect.delivery_id):
                return  # whoever had it has gone, and it with him
            cause = original(raised)
            observer.failed(key, delivery, cause, self._clock.monotonic() - begun)
            policy = self._options.retry.of(cause)
            mendable = not isinstance(cause, (Unmendable, *policy.never))
            lost = isinstance(cause, ConsumerLost)
            then = cause.action if isinstance(cause, Nack) else None
            self._conclude(inputs.Failed(effect.delivery_id, described(raised), mendable, lost, then, policy))
        else:
            observer.handled(key, delivery, self._clock.monotonic() - begun)
            self._conclude(inputs.Handled(effect.delivery_id))

    async def _is_cancelled(self) -> bool:
        """Whether a delivery is cancelled because all of this ends, and not by its own handler.

        Only ``run`` cancels deliveries, and it says so before; when the whole loop is ended, it says so within one turn
        of that. A task that was cancelled otherwise goes on to its answer.
        """
        task = asyncio.current_task()
        while task is not None and task.cancelling():
            task.uncancel()
        if not self._over:
            await asyncio.sleep(0)
        return self._over

    def _awaits(self, delivery_id: int) -> bool:
        return self._machine is not None and self._machine.awaits(delivery_id)

    def _delivered(self, delivery_id: int, task: asyncio.Task[None]) -> None:
        """The net under each delivery: however it ended, one that nobody has answered has failed."""
        if self._over or not self._awaits(delivery_id):
            return
        if task.cancelled():
            self._tell(inputs.Failed(delivery_id, "the delivery was cancelled"))
        elif task.exception() is None:
            self._tell(inputs.Failed(delivery_id, "the delivery ended without an answer"))

    def _conclude(self, answer: inputs.Handled | inputs.Failed) -> None:
        if answer.delivery_id in self._answered:
            self._answered.discard(answer.delivery_id)
        else:
            self._tell(answer)

    async def _handle_when_possible(self, index: int, delivery: Delivered) -> None:
        """Hand a delivery over; an exactly-once one that the database refused anybody is no attempt, and made again."""
        while True:
            try:
                return await self._handle(index, delivery)
            except StoreUnavailable as error:
                if delivery.commit is None:
                    raise
                self._observer.trouble(self._grant.key, "commit what was handled", error)
            await self._rest_in_outage()

    async def _begin_retry(self, effect: effects.Deliver) -> effects.Deliver | None:
        """Count the attempt at a parked event durably, however long that takes; None when it is not to be made."""
        assert self._retries is not None
        try:
            while True:
                try:
                    return await self._retries.begin(effect)
                except StoreUnavailable as error:
                    self._observer.trouble(self._grant.key, "begin a retry", error)
                await self._rest_in_outage()
        except StaleEpoch as error:
            self._tell(inputs.LeaseLost(str(error)))
            return None

    async def _rest_in_outage(self) -> None:
        """Wait before the database is asked again. Raises StaleEpoch when the lease is lost meanwhile."""
        await asyncio.sleep(OUTAGE_PAUSE)
        if not await self._lease_holds():
            raise StaleEpoch(self._grant.key.subscription, self._grant.key.partition, self._grant.epoch)

    async def _handle(self, index: int, delivery: Delivered) -> None:
        consumer = self._consumers[index]
        if _is_replaceable(consumer):
            await self._make_ready(index, consumer)
            if not await self._lease_holds():  # to make an executor ready may have taken long
                raise StaleEpoch(self._grant.key.subscription, self._grant.key.partition, self._grant.epoch)
        limit = self._options.handler_timeout
        if limit is None:
            await consumer.handle(delivery)
            return
        async with asyncio.timeout(limit.total_seconds()):
            await consumer.handle(delivery)

    async def _make_ready(self, index: int, consumer: Replaceable) -> None:
        """Wait for a consumer, however long that takes: no attempt has begun, so there is none to end or to count."""
        awaited = False

        def tell() -> None:
            nonlocal awaited
            awaited = True
            self._tell(inputs.Awaited(index))

        timer = asyncio.get_running_loop().call_later(READY_SOON, tell)
        try:
            await consumer.ready()
        finally:
            timer.cancel()
            if awaited:
                self._tell(inputs.Arrived(index))

    async def _save(self, effect: effects.Save) -> None:
        try:
            if effect.sets_back:
                # Before it is known whether it succeeds: one that is tried again must not be overtaken by this one.
                self._grant = self._grant.rewound()
            if effect.rewind:
                await self._checkpoints.rewind(
                    self._grant,
                    effect.progress,
                    settled=effect.settled,
                    side_effects=effect.side_effects,
                    commands=effect.commands,
                )
                if self._bounded is not None:
                    self._bounded.forget()
            elif effect.back:
                await self._checkpoints.take_back(self._grant, effect.progress)
            else:
                await self._checkpoints.save(self._numbered(), effect.progress, durable=effect.durable)
        except StaleEpoch as error:
            self._tell(inputs.LeaseLost(str(error)))
        except Exception as error:  # noqa: BLE001  # whatever it is, saving is tried again, and the reason is shown
            self._observer.trouble(self._grant.key, "save the checkpoint", error)
            self._tell(inputs.SaveFailed(repr(error)))
        else:
            self._observer.checkpointed(self._grant.key, effect.progress)
            self._tell(inputs.Saved())

    async def _reload(self) -> None:
        try:
            progress = await self._checkpoints.load(self._grant)
        except StaleEpoch as error:
            self._tell(inputs.LeaseLost(str(error)))
        except Exception as error:  # noqa: BLE001  # whatever it is, it is tried again, and the reason is shown
            self._observer.trouble(self._grant.key, "read the checkpoint", error)
            self._tell(inputs.SaveFailed(repr(error)))
        else:
            self._tell(inputs.Reloaded(progress))

    async def _park(self, effect: effects.Park) -> None:
        try:
            await self._checkpoints.park(self._numbered(), effect.parked)
        except StaleEpoch as error:
            self._tell(inputs.LeaseLost(str(error)))
        except Exception as error:  # noqa: BLE001  # whatever it is, parking is tried again, and the reason is shown
            self._observer.trouble(self._grant.key, "park events", error)
            self._tell(inputs.ParkFailed(effect.token, repr(error)))
        else:
            self._observer.parked(self._grant.key, effect.parked)
            self._tell(inputs.Parked(effect.token))
            self.retry_parked()  # from now on it is looked often

    async def _halt(self, effect: effects.Halt, previous: asyncio.Task[None] | None) -> None:
        """Write it down, however long that takes: the next owner goes by it."""
        if previous is not None and not previous.done():
            await asyncio.wait([previous])
        try:
            while True:
                try:
                    await self._checkpoints.halt(self._grant, effect.number, effect.halt)
                    break
                except StoreUnavailable as error:
                    self._observer.trouble(self._grant.key, "write down that it is stopped, or goes on", error)
                await self._rest_in_outage()
        except StaleEpoch as error:
            self._tell(inputs.LeaseLost(str(error)))
        else:
            self._tell(inputs.HaltWritten(effect.number))

    async def _report(self) -> None:
        """Tell operators the last word until it is stored: a replacement waits for what it says."""
        while (effect := self._to_report) is not None:
            stopping = self._halting if effect.phase in (Phase.PAUSED, Phase.FAILED) else None
            if stopping is not None and not stopping.done():
                # What operators see of a stop is durable: the next owner knows of it, too.
                await asyncio.wait([stopping])
                continue
            try:
                await self._checkpoints.report(self._numbered(), effect.phase.value, effect.reason)
            except StaleEpoch as error:
                self._tell(inputs.LeaseLost(str(error)))
                return
            except Exception as error:  # noqa: BLE001  # a status that cannot be told must not hold up the events
                self._observer.trouble(self._grant.key, "report its status", error)
                if effect.phase is Phase.FINISHED:
                    return  # whoever gives the lease back does not wait for it
                await asyncio.sleep(OUTAGE_PAUSE)
            else:
                if self._to_report is effect:
                    self._to_report = None

    # The lease.

    async def _lease_holds(self) -> bool:
        """Wait, when the lease was not renewed in time, until it is (True) or is lost (False)."""
        while not self._leases.lost(self._grant):
            if self._clock.monotonic() < self._leases.valid_until:
                return True
            await asyncio.sleep(RENEWAL_CHECK)
        return False

    async def _watch_lease(self) -> None:
        """Notice the loss of the lease also while nothing is delivered."""
        told = asyncio.Event()
        unlisten = self._leases.on_lost(lambda _: told.set())
        try:
            while not self._leases.lost(self._grant):
                told.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOSS_CHECK):
                        await told.wait()
        finally:
            unlisten()
        self._tell(inputs.LeaseLost("the session that held the lease has ended"))

    def __repr__(self) -> str:
        key, status = self._grant.key, self.status
        return f"<SubscriptionRunner {key.subscription}/{key.partition} epoch={self._grant.epoch} {status.phase.value}>"


def _is_replaceable(consumer: Consumer) -> TypeGuard[Replaceable]:
    return _fits_replaceable(type(consumer))


@functools.cache
def _fits_replaceable(kind: type[Consumer]) -> bool:
    # Once for each class: whether it has all that a protocol asks for takes as long to find out as a short handler.
    return issubclass(kind, Replaceable)


async def _nothing() -> None: ...


async def _end(tasks: Sequence[asyncio.Task[None]]) -> int:
    """Cancel them and wait until they have ended; returns how many have not, because they pay no heed to it."""
    for task in tasks:
        task.cancel()
    if not tasks:
        return 0
    _, left = await asyncio.wait(tasks, timeout=STUBBORN)
    return len(left)
