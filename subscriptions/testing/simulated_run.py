"""One grant in a simulated history: a machine, and what a runner does for it, at random times and with random outcomes.

Holds no decisions of its own, but those of the weather.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Coroutine, Hashable, Mapping
from itertools import count
from typing import Any, Final, Protocol

from headwater.storage.errors import StaleEpoch, StoreUnavailable, UnexpectedAck
from headwater.storage.leases import Grant, Progress, Retried
from headwater.storage.parking import BEHIND
from headwater.storage.registry import ParkedFilter
from headwater.subscriptions.core import effects, inputs
from headwater.subscriptions.core.machine import LATE, Machine
from headwater.subscriptions.core.phases import Phase, delivers
from headwater.subscriptions.core.sieve import Sieve
from headwater.subscriptions.handler import Context
from headwater.subscriptions.observer import Observer
from headwater.subscriptions.options import Delivery
from headwater.subscriptions.ports import Nack, Unmendable
from headwater.subscriptions.raised import described, original
from headwater.subscriptions.retries import ParkedRetries
from headwater.subscriptions.testing.invariants import BrokenInvariant, RunWitness, Witness
from headwater.subscriptions.testing.program import Program
from headwater.subscriptions.testing.slow_ports import Pause, SlowCheckpoints, SlowParking, SlowReader, executed_late
from headwater.subscriptions.testing.world import KEY, World, at_once

SLOW: Final = 2.0
"""For so many seconds a network stays slow."""

LOOK_EVERY: Final = 0.3
"""At most so many seconds between two looks at what was parked."""


class Process(Protocol):
    """The simulated process that has the grant."""

    def do(self, what: Callable[[], None]) -> Callable[[], None]:
        """Wrap what this process does: not when it has crashed since, later when it is frozen."""
        ...

    def crash(self) -> None:
        """End."""
        ...

    def trusts_lease(self) -> bool:
        """Answer what a runner asks before each delivery."""
        ...


class SimulatedRun:
    """One grant: a machine, and what a runner does for it."""

    def __init__(self, world: World, witness: Witness, sieve: Sieve, owner: Process, grant: Grant) -> None:
        self.grant = grant
        self._world = world
        self._witness = witness
        self._sieve = sieve
        self._owner = owner
        self._seen: RunWitness = witness.granted(grant.epoch, grant.progress)
        self._machine: Machine
        self._retries: ParkedRetries
        self._wake_at: float | None = None
        self._slow_until = 0.0
        self._writes = count(1)
        self._late: list[tuple[Hashable, Callable[[], None]]] = []
        """Writes that were given up, with what is written before the database executes them: a save, that the event of
        this position is settled, or (None) only what sets the checkpoint back."""
        self._taken: set[int] = set()
        self._left = False
        self._halted = False
        """Whether an earlier owner was stopped, and nobody has resumed it since."""

    @property
    def over(self) -> bool:
        return self._machine.condition.phase is Phase.FINISHED

    @property
    def failed(self) -> bool:
        return self._machine.condition.phase is Phase.FAILED

    def begin(self) -> None:
        options, world = self._world.options, self._world
        keys = frozenset(at_once(world.checkpoints.parked_keys(self.grant)))
        halt = at_once(world.checkpoints.halted(self.grant))
        stopped = world.coordination.row(KEY).halt
        self._halted = stopped is not None and stopped.phase is not None
        granted = inputs.Granted(self.grant.progress, keys, halt)
        self._machine = Machine(
            options,
            granted,
            self._sieve,
            consumers=range(max(1, options.most_consumers)),
            random=world.random.random,
            now=world.now,
        )
        self._retries = ParkedRetries(
            lambda: self.grant,
            self._machine,
            self.tell,
            parking=SlowParking(world),
            checkpoints=SlowCheckpoints(world),
            reader=SlowReader(world),
            observer=Observer(),
            interval=LOOK_EVERY,
            attempts=1 if options.delivery is Delivery.AT_MOST_ONCE else options.retry.attempts,
        )
        self.tell(inputs.Tick())
        self._look()

    def lose(self, reason: str) -> None:
        self.tell(inputs.LeaseLost(reason))

    def slow_down(self) -> None:
        """Let the network be slow for a while."""
        self._slow_until = self._world.now + SLOW

    def command(self) -> None:
        """Let an operator ask for something."""
        world = self._world
        draw = world.random.random()
        if draw < 0.3:
            self.tell(inputs.Pause("asked to"))
            world.soon(2.0, self._owner.do(lambda: self.tell(inputs.Resume())))
        elif draw < 0.6:
            if draw < 0.5 and world.options.delivery is Delivery.AT_MOST_ONCE:
                self._leave()
            self.tell(inputs.Drain())
        elif draw < 0.7:
            self.decide_parked()
        elif draw < 0.95 and world.options.delivery is Delivery.AT_LEAST_ONCE:
            rewind = inputs.Rewind(world.random.randrange(self._witness.checkpoint + 1))
            if world.chance(world.weather.network_slow):
                self.slow_down()
            world.soon(SLOW / 4, self._owner.do(lambda: self.tell(rewind)))
        else:
            self.tell(inputs.Resume())

    def decide_parked(self) -> None:
        """Let an operator decide what becomes of parked events."""
        world, random = self._world, self._world.random
        draw = random.random()
        where = ParkedFilter() if random.random() < 0.5 else ParkedFilter(stream=f"stream-{random.randrange(6)}")
        row = world.coordination.row(KEY)
        if draw < 0.7:
            limit = random.choice([None, None, 1, 2, 5])
            rate = random.choice([None, None, 2.0, 20.0])
            change = world.parking.retry_parked(KEY, where, limit=limit, rate=rate)
            self._witness.asked(change.positions)
            keys = {position: row.parked[position].key for position in change.positions}
            every = None if rate is None else 1 / rate
            world.retries.asked(change.positions, self._waiting(keys), every)
            return
        before = {position: each.key for position, each in row.parked.items()}
        if draw < 0.85:
            change = world.parking.cancel_retry(KEY, where)
            world.retries.left(change.positions)
        else:
            limit, release = random.choice([None, 1]), random.random() < 0.5
            change = world.parking.discard_parked(KEY, where, limit=limit, release=release)
            world.retries.given_up(change.positions)
            if release:
                released = [position for position in change.to_deliver if position in row.retrying]
                self._witness.asked(released)
                world.retries.asked(released, (), None)
                return
            if change.to_deliver:
                return  # somebody asked for these before
        world.retries.left(self._waiting({each: before[each] for each in (*change.positions, *change.under_way)}))

    def _waiting(self, meant: Mapping[int, str | None]) -> list[int]:
        """Return what is parked of the keys of these, is not under way, and is not to be handled again.

        But not what a rewind has put before them, behind nothing: nobody was asked about it, and it follows by itself.
        """
        row = self._world.coordination.row(KEY)
        waiting: list[int] = []
        for key in set(meant.values()) - {None}:
            first = min(position for position, of in meant.items() if of == key)
            stuck = False
            for position in row.in_key(key):
                stuck = stuck or position >= first or row.parked[position].reason != BEHIND
                if stuck and position not in row.retrying and not row.begun.get(position):
                    waiting.append(position)
        return waiting

    def _leave(self) -> None:
        """Let the only consumer go, as in pull mode: it starts with nothing more."""
        self._left = True
        self.tell(inputs.Left(0, frozenset(self._taken)))

    def tell(self, fact: inputs.Input) -> None:
        if self.over:
            return
        if isinstance(fact, inputs.RetryWritten) and fact.position not in self._parked():
            self._witness.closed(fact.position)
            self._let_go(fact.position)
        if isinstance(fact, inputs.Resume):
            self._halted = False
        world, machine = self._world, self._machine
        for effect in machine.react(fact, world.now):
            self._perform(effect)
        if machine.unsettled > world.options.max_in_flight:
            raise BrokenInvariant(f"{machine.unsettled} events are held in memory")
        if machine.wake_at is not None and machine.wake_at != self._wake_at:
            self._wake_at = machine.wake_at
            world.agenda.at(max(world.now, machine.wake_at), self._owner.do(self._wake))
        if self.over and not isinstance(fact, inputs.LeaseLost) and machine.condition.reason != LATE:
            row = world.coordination.row(KEY)
            if row.epoch == self.grant.epoch:
                self._witness.let_go(self._seen, row.progress.checkpoint)

    def _wake(self) -> None:
        if self._wake_at is not None and self._world.now >= self._wake_at:
            self._wake_at = None
            self.tell(inputs.Tick())

    def _perform(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Read():
                self._later(0.02, lambda: self._read(effect))
            case effects.Deliver():
                self._later(0.005, lambda: self._deliver(effect))
            case effects.Save():
                self._later(0.02, lambda: self._save(effect))
            case effects.Reload():
                self._later(0.02, self._reload)
            case effects.Park():
                self._later(0.02, lambda: self._park(effect))
            case effects.Retry():
                self._drive(self._retries.write(effect))
            case effects.Skipped():
                self._witness.set_aside([effect.event.position])
            case effects.Halt():
                self._later(0.02, lambda: self._halt(effect))
            case effects.Report():
                self._later(0.02, lambda: self._report(effect))
            case effects.Refuse():
                pass

    def _look(self) -> None:
        if not self.over:
            self._drive(self._look_once())

    async def _look_once(self) -> None:
        try:
            if delivers(self._machine.condition.phase):
                await self._retries.look()
        except StaleEpoch as error:
            self.tell(inputs.LeaseLost(str(error)))
        except StoreUnavailable:
            pass
        self._world.soon(LOOK_EVERY, self._owner.do(self._look))

    def _drive(self, work: Coroutine[Any, Any, None]) -> None:
        """Let a coroutine go on to its next pause, and so on."""
        try:
            work.send(None)
        except StopIteration:
            return
        self._later(0.02, lambda: self._drive(work))

    def _later(self, longest: float, what: Callable[[], None]) -> None:
        def unless_over() -> None:
            if not self.over:
                what()

        self._world.soon(longest, self._owner.do(unless_over))

    def _answer(self, fact: inputs.Input) -> None:
        """Give an answer after a while; sometimes a consumer that was given up says much later that it is done."""

        def answer() -> None:
            self.tell(fact)
            late = self._world.chance(self._world.weather.answered_twice)
            if late and isinstance(fact, inputs.Handled | inputs.Failed):
                wait = self._world.random.choice([0.05, 1.0])
                self._later(wait, lambda: self.tell(inputs.Handled(fact.delivery_id)))

        self._later(0.005, answer)

    def _read(self, effect: effects.Read) -> None:
        if self._world.chance(self._world.weather.read_fails):
            self._answer(inputs.ReadFailed(effect.read_id, "no answer"))
        else:
            self._answer(inputs.PageRead(effect.read_id, self._world.read(effect.after, effect.limit)))

    def _deliver(self, effect: effects.Deliver) -> None:
        if not self._owner.trusts_lease():
            self._later(0.05, lambda: self._deliver(effect))
        elif effect.parked:
            self._drive(self._begin_retry(effect))
        else:
            self._start(effect)

    async def _begin_retry(self, effect: effects.Deliver) -> None:
        while True:
            try:
                begun = await self._retries.begin(effect)
                break
            except StoreUnavailable:
                await Pause()
            except StaleEpoch as error:
                self.tell(inputs.LeaseLost(str(error)))
                return
        if begun is not None:
            self._start(begun)

    def _start(self, effect: effects.Deliver) -> None:
        """Call the handler."""
        if self._left:
            return
        grant = self._retries.numbered(self.grant) if effect.parked else self.grant
        if self._halted:
            raise BrokenInvariant("the handler runs although it was stopped, and nobody has resumed it")
        self._taken.update(event.number for event in effect.events)
        world, seen = self._world, self._seen
        row = world.coordination.row(KEY)
        owner = row.epoch == self.grant.epoch
        if effect.parked:
            self._witness.retried(seen, effect.delivery_id, effect.events[0], self._parked(), owner=owner)
        else:
            progress = row.progress if owner else None
            counted = effect.attempt if world.options.most_consumers == 0 else 0
            self._witness.started(seen, effect.delivery_id, effect.events, progress, self._parked(), counted)
        positions = {event.position for event in effect.events}
        if positions & world.deadly and self._kills_owner():
            self._owner.do(self._owner.crash)()
            return
        if len(effect.events) > 1 and effect.commit is None and world.chance(world.weather.answered_in_parts):
            self._later(0.02, lambda: self._answer_part(effect))
        world.agenda.at(
            world.now + 0.02 + world.random.random() * 0.03, self._owner.do(lambda: self._end(effect, grant, positions))
        )

    def _parked(self) -> Collection[int]:
        return self._world.coordination.row(KEY).parked

    def _answer_part(self, effect: effects.Deliver) -> None:
        first = effect.events[0]
        if first.position not in self._world.poison | self._world.deadly:
            self._witness.partly_handled(self._seen, first)
            self.tell(inputs.Handled(effect.delivery_id, frozenset((first.number,))))

    def _kills_owner(self) -> bool:
        # With handler actors, a handler that ends its process ends only that.
        return self._world.options.consumers == 0

    def _end(self, effect: effects.Deliver, grant: Grant, positions: set[int]) -> None:
        """Let the handler return; it runs on even when the owner has lost the lease."""
        world, weather = self._world, self._world.weather
        if world.program is not None:
            self._call(world.program, effect, positions)
            return
        fails = bool(positions & world.poison) or world.chance(weather.handler_fails)
        dies = bool(positions & world.deadly) or world.chance(weather.consumer_dies)
        done = not fails and not (dies and bool(positions & world.deadly))
        answer: inputs.Input = inputs.Handled(effect.delivery_id)
        if done and effect.commit is not None:
            done, answer = self._commit(effect, grant)
        self._witness.ended(self._seen, effect.delivery_id, effect.events, handled=done)
        if done and effect.commit is not None:
            self._wrote()
        if dies:
            answer = inputs.Failed(effect.delivery_id, "the consumer is gone", lost=True)
        elif fails:
            answer = inputs.Failed(effect.delivery_id, "the handler failed", mendable=world.random.random() > 0.1)
        self._answer(answer)

    def _call(self, program: Program, effect: effects.Deliver, positions: set[int]) -> None:
        """Run the user's handler; the weather may end it before it began, or lose what it answers."""
        world, weather = self._world, self._world.weather
        hopeless = bool(positions & (world.poison | world.deadly))
        dies = bool(positions & world.deadly) or world.chance(weather.consumer_dies)
        fails = hopeless or dies or world.chance(weather.handler_fails)
        answer: inputs.Input = inputs.Handled(effect.delivery_id)
        handled = False
        if not hopeless and (not fails or world.random.random() < 0.5):
            error = program.call(effect.events, self._context(effect))
            handled = error is None
            if error is not None:
                cause = original(error)
                policy = world.options.retry.of(cause)
                mendable = not isinstance(cause, (Unmendable, *policy.never))
                then = cause.action if isinstance(cause, Nack) else None
                answer = inputs.Failed(effect.delivery_id, described(error), mendable, then=then, policy=policy)
        if fails:
            # Whether the handler ran is not known to anybody.
            why = "the consumer is gone" if dies else "the handler did not answer in time"
            answer, handled = inputs.Failed(effect.delivery_id, why, lost=dies), False
        self._witness.ended(self._seen, effect.delivery_id, effect.events, handled=handled)
        self._answer(answer)

    def _context(self, effect: effects.Deliver) -> Context:
        replaying = not effect.parked and effect.events[-1].number <= self._world.replay_until
        return Context(
            subscription=KEY.subscription,
            partition=0,
            epoch=self.grant.epoch,
            attempt=effect.attempt,
            replaying=replaying,
            consumer=effect.consumer,
        )

    def _commit(self, effect: effects.Deliver, grant: Grant) -> tuple[bool, inputs.Input]:
        try:
            self._commit_in_transaction(effect.commit, grant)
        except StaleEpoch as error:
            return False, inputs.LeaseLost(str(error))
        except UnexpectedAck as error:
            return False, inputs.Failed(effect.delivery_id, str(error))
        if self._world.chance(self._world.weather.save_fails):
            return True, inputs.Failed(effect.delivery_id, "the connection broke while committing")
        return True, inputs.Handled(effect.delivery_id)

    def _commit_in_transaction(self, commit: Progress | Retried | None, grant: Grant) -> None:
        world = self._world
        if isinstance(commit, Progress):
            at_once(world.checkpoints.save(grant, commit, conn=_Transaction()))
            return
        assert commit is not None
        if commit.position not in self._parked():
            raise UnexpectedAck(KEY.subscription, number=commit.position)
        at_once(world.parking.retried(grant, commit.position, commit.key))
        world.retries.settled(commit.position)

    def _save(self, effect: effects.Save) -> None:
        world = self._world
        if effect.sets_back:
            self.grant = self.grant.rewound()
        grant = self._numbered()
        if self._unanswered():
            self._keep_late("saved", functools.partial(self._write_progress, effect, grant, late=True))
            self._answer(inputs.SaveFailed("no answer"))
            return
        try:
            self._write_progress(effect, grant)
        except StaleEpoch as error:
            self._answer(inputs.LeaseLost(str(error)))
            return
        if effect.rewind:
            self._world.replay_until = max(self._world.replay_until, effect.settled)
            self._seen = RunWitness(self.grant.epoch, effect.progress.checkpoint, busy=self._seen.busy)
        self._let_go("saved", set_back=effect.sets_back)
        lost = world.chance(world.weather.save_fails)
        self._answer(inputs.SaveFailed("no answer") if lost else inputs.Saved())

    def _write_progress(self, effect: effects.Save, grant: Grant, *, late: bool = False) -> None:
        if effect.rewind:
            at_once(self._world.checkpoints.rewind(grant, effect.progress))
        elif effect.back:
            at_once(self._world.checkpoints.take_back(grant, effect.progress))
        else:
            at_once(self._world.checkpoints.save(grant, effect.progress))
        # What is late is nothing that somebody waits for: the checkpoint must not fall by it.
        self._wrote(rewind=effect.rewind and not late, back=effect.back and not late)

    def _unanswered(self) -> bool:
        """Draw whether the database does not hear a write, or not in time."""
        slow = self._world.now < self._slow_until
        return self._world.chance(0.5 if slow else self._world.weather.save_fails)

    def _numbered(self) -> Grant:
        return self.grant.numbered(next(self._writes))

    def _keep_late(self, after: Hashable, write: Callable[[], None]) -> None:
        """Let a write that is given up be executed after this, or once the checkpoint was set back, perhaps."""
        if self._world.chance(self._world.weather.save_late):
            self._late.append((after if self._world.chance(0.5) else None, write))

    def _let_go(self, happened: Hashable, *, set_back: bool = False) -> None:
        """Let the database execute what is late; nobody waits for it any more, whatever has become of its process."""
        late, self._late = self._late, []
        for after, write in late:
            if set_back or after == happened:
                wait = self._world.random.choice([0.01, 0.1, 1.0])
                self._world.soon(wait, functools.partial(executed_late, write))
            else:
                self._late.append((after, write))

    def _wrote(self, *, rewind: bool = False, back: bool = False) -> None:
        checkpoint = self._world.coordination.row(KEY).progress.checkpoint
        self._witness.wrote(self.grant.epoch, checkpoint, rewind=rewind, back=back)

    def _reload(self) -> None:
        try:
            self._answer(inputs.Reloaded(at_once(self._world.checkpoints.load(self.grant))))
        except StaleEpoch as error:
            self._answer(inputs.LeaseLost(str(error)))

    def _park(self, effect: effects.Park) -> None:
        grant = self._numbered()
        if self._unanswered():
            self._keep_late(effect.parked[0].event.position, functools.partial(self._write_parked, effect, grant))
            self._answer(inputs.ParkFailed(effect.token, "no answer"))
            return
        try:
            self._write_parked(effect, grant)
        except StaleEpoch as error:
            self._answer(inputs.LeaseLost(str(error)))
            return
        self._witness.set_aside(each.event.position for each in effect.parked)
        self._answer(inputs.Parked(effect.token))

    def _write_parked(self, effect: effects.Park, grant: Grant) -> None:
        at_once(self._world.checkpoints.park(grant, effect.parked))
        self._wrote()
        self._witness.parked(self._parked())
        self._world.retries.parked(each.event.position for each in effect.parked)

    def _halt(self, effect: effects.Halt) -> None:
        write = functools.partial(self._world.checkpoints.halt, self.grant, effect.number, effect.halt)
        if self._unanswered():
            # It is executed some time, perhaps after a later one.
            self._world.soon(1.0, functools.partial(executed_late, lambda: at_once(write())))
            self._later(0.05, lambda: self._halt(effect))
            return
        try:
            at_once(write())
        except StaleEpoch as error:
            self._answer(inputs.LeaseLost(str(error)))
            return
        self._answer(inputs.HaltWritten(effect.number))

    def _report(self, effect: effects.Report) -> None:
        try:
            at_once(self._world.checkpoints.report(self._numbered(), effect.phase.value, effect.reason))
        except StaleEpoch as error:
            self._answer(inputs.LeaseLost(str(error)))

    def __repr__(self) -> str:
        machine = self._machine
        return f"epoch={self.grant.epoch} {machine.condition!r} unsettled={machine.unsettled} wake_at={machine.wake_at}"


class _Transaction:
    """A handler's transaction that is always committed."""

    def on_rollback(self, undo: Callable[[], None]) -> None:
        """Nothing is ever undone."""
