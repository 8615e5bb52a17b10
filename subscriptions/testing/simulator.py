"""Seeded histories: several owners, crashes, freezes, lost leases, lost and invented hints, late and doubled answers.

``simulate(seed)`` plays one history and raises BrokenInvariant, with the seed in it, when something happens that never
may; the same seed plays the same history again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from headwater.storage.errors import StaleEpoch, UnexpectedAck
from headwater.storage.leases import Grant, Progress
from headwater.storage.memory.subscriptions import MemoryLeases
from headwater.subscriptions.core import effects, inputs
from headwater.subscriptions.core.machine import Machine
from headwater.subscriptions.core.phases import Phase
from headwater.subscriptions.core.sieve import Sieve
from headwater.subscriptions.options import Delivery
from headwater.subscriptions.testing.invariants import BrokenInvariant, RunWitness, Witness
from headwater.subscriptions.testing.world import KEY, Weather, World, at_once

SESSION_TIMEOUT: Final = 3.0
"""After so many seconds without a sign of life the server ends a session."""

VALIDITY: Final = 2.5
"""For so many seconds after its last sign of life an owner trusts its lease."""

REST: Final = 300.0
"""The world must have come to rest within so many virtual seconds after the last mishap."""


@dataclass(frozen=True, slots=True)
class History:
    """What came of a history without a broken invariant."""

    seed: int
    steps: int
    events: int
    handler_calls: int
    grants: int
    crashes: int


def simulate(seed: int, *, steps: int = 1000, weather: Weather | None = None, owners: int = 3) -> History:
    """Play one history of at least ``steps`` steps, then let the world come to rest.

    Raises BrokenInvariant, with the seed in its text.
    """
    simulation = _Simulation(seed, weather if weather is not None else Weather(), owners)
    try:
        return simulation.play(steps)
    except BrokenInvariant as broken:
        raise BrokenInvariant(f"seed {seed}, {simulation.world.now:.3f} s: {broken}") from broken


class _Simulation:
    """One history."""

    def __init__(self, seed: int, weather: Weather, owners: int) -> None:
        self.world = World(seed, weather)
        options = self.world.options
        self.sieve = Sieve()
        self.witness = Witness(options.delivery, self.sieve.key_of)
        self.seed = seed
        self.grants = 0
        self.crashes = 0
        self.owners = [_Owner(self, f"owner-{index}") for index in range(owners)]
        self._appends = True

    def play(self, steps: int) -> History:
        world = self.world
        world.soon(0.1, self._append)
        for owner in self.owners:
            world.soon(0.2, owner.try_to_claim)
        taken = 0
        while taken < steps:
            world.agenda.step()
            taken += 1
        self._appends, world.calm = False, True
        by = world.now + REST
        while not self._at_rest():
            if world.now > by:
                raise BrokenInvariant(self._unrest())
            world.agenda.step()
            taken += 1
        if missing := self.witness.missing():
            raise BrokenInvariant(f"never settled: {missing}")
        calls = sum(self.witness.calls.values())
        return History(self.seed, taken, len(world.events), calls, self.grants, self.crashes)

    def _at_rest(self) -> bool:
        row = self.world.coordination.row(KEY)
        return row.progress.checkpoint >= self.world.head and row.progress.in_flight_to <= row.progress.checkpoint

    def _unrest(self) -> str:
        row = self.world.coordination.row(KEY)
        return f"no rest: {row.progress}, {row.phase}: {row.reason}, head {self.world.head}, {self.owners}"

    def _append(self) -> None:
        if not self._appends:
            return
        world = self.world
        for event in world.append():
            self.witness.appended(event)
        if not world.chance(world.weather.hint_lost):
            head = world.head
            if world.chance(world.weather.hint_invented):
                head += world.random.randrange(1, 1000)
            for owner in self.owners:
                world.soon(0.05, lambda owner=owner, head=head: owner.hint(head))  # type: ignore[misc]
        world.soon(world.random.choice([0.02, 0.2, 1.5]), self._append)


class _Owner:
    """One process that claims the lease, and runs a machine while it has it."""

    def __init__(self, simulation: _Simulation, name: str) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._name = name
        self._life = 0
        self._leases = MemoryLeases(self._world.coordination, name)
        self._run: _Run | None = None
        self.frozen_until = 0.0
        self.alive_until = 0.0
        """While frozen: how long the lease was trusted when the process froze."""

    @property
    def frozen(self) -> bool:
        return self._world.now < self.frozen_until

    def do(self, what: Callable[[], None]) -> Callable[[], None]:
        """Wrap what this process does: not when it has crashed since, later when it is frozen."""
        life = self._life

        def act() -> None:
            if life != self._life:
                return
            if self.frozen:
                self._world.agenda.at(self.frozen_until, act)
                return
            what()

        return act

    def hint(self, head: int) -> None:
        if self._run is not None:
            self.do(lambda: self._run.tell(inputs.HeadSeen(head)) if self._run else None)()

    def try_to_claim(self) -> None:
        """Ask for the lease every so often, and let mishaps happen while it is held."""
        world = self._world
        world.soon(0.4, self.try_to_claim)
        if self.frozen:
            return
        self._mishaps()
        if self._run is not None and self._run.over:
            at_once(self._leases.release([self._run.grant]))
            self._run = None
        if self._run is None and not self.frozen:
            if self._leases.session_ended:
                self._leases.reconnect()
                self.alive_until = 0.0
            for grant in at_once(self._leases.claim([KEY])):
                self._simulation.grants += 1
                self._run = _Run(self._simulation, self, grant)
                self._run.begin()

    def _mishaps(self) -> None:
        world, weather = self._world, self._world.weather
        if self._run is None:
            return
        if self._run.failed and world.random.random() < 0.3:
            # The users mend their handler, and resume.
            world.poison.clear()
            world.deadly.clear()
            self._run.tell(inputs.Resume())
        if world.chance(weather.owner_crashes * 10):
            self.crash()
        elif world.chance(weather.owner_freezes * 10):
            self._freeze()
        elif world.chance(weather.lease_lost * 10):
            self._lose_session(notice_after=0.1)
        elif world.chance(weather.commanded * 10):
            self._run.command()
        elif world.calm and not self._run.failed:
            self._run.tell(inputs.Resume())

    def crash(self) -> None:
        """End this process; another one takes its name. Its handlers end wherever they are."""
        self._simulation.crashes += 1
        self._life += 1
        self._run = None
        self.frozen_until = self.alive_until = 0.0
        leases = self._leases
        self._world.soon(0.2, leases.end_session)
        self._leases = MemoryLeases(self._world.coordination, self._name)

    def _freeze(self) -> None:
        world = self._world
        duration = world.random.choice([0.5, 2.0, 4.0, 8.0])
        self.alive_until = world.now + VALIDITY
        self.frozen_until = world.now + duration
        if duration > SESSION_TIMEOUT:
            leases, run = self._leases, self._run
            world.agenda.at(world.now + SESSION_TIMEOUT, leases.end_session)
            # The thawed process learns of it only after it has had time to do harm.
            world.agenda.at(self.frozen_until + 0.1, lambda: run.lose("session ended") if run else None)
        else:
            world.agenda.at(self.frozen_until + 0.05, self._renew)

    def _renew(self) -> None:
        self.alive_until = 0.0

    def _lose_session(self, *, notice_after: float) -> None:
        run = self._run
        self._leases.end_session()
        self._world.soon(notice_after, lambda: run.lose("session ended") if run else None)

    def trusts_lease(self) -> bool:
        """What a runner asks before each delivery."""
        return self.alive_until == 0.0 or self._world.now < self.alive_until

    def __repr__(self) -> str:
        return f"<{self._name} {self._run}>"


class _Run:
    """One grant: a machine, and what a runner does for it."""

    def __init__(self, simulation: _Simulation, owner: _Owner, grant: Grant) -> None:
        self.grant = grant
        self._world = simulation.world
        self._witness = simulation.witness
        self._owner = owner
        self._seen: RunWitness = self._witness.granted(grant.epoch, grant.progress)
        self._sieve = simulation.sieve
        self._machine: Machine
        self._wake_at: float | None = None
        self._answers: list[inputs.Input] = []

    @property
    def over(self) -> bool:
        return self._machine.condition.phase is Phase.FINISHED

    @property
    def failed(self) -> bool:
        return self._machine.condition.phase is Phase.FAILED

    def begin(self) -> None:
        options, world = self._world.options, self._world
        keys = frozenset(at_once(world.checkpoints.parked_keys(self.grant)))
        granted = inputs.Granted(self.grant.progress, keys)
        self._machine = Machine(
            options,
            granted,
            self._sieve,
            consumers=range(max(1, options.consumers)),
            random=world.random.random,
            now=world.now,
        )
        self.tell(inputs.Tick())

    def lose(self, reason: str) -> None:
        self.tell(inputs.LeaseLost(reason))

    def command(self) -> None:
        """Let an operator ask for something."""
        world = self._world
        draw = world.random.random()
        if draw < 0.3:
            self.tell(inputs.Pause("asked to"))
            world.soon(2.0, self._owner.do(lambda: self.tell(inputs.Resume())))
        elif draw < 0.6:
            self.tell(inputs.Drain())
        elif draw < 0.8 and world.options.delivery is Delivery.AT_LEAST_ONCE:
            self.tell(inputs.Rewind(world.random.randrange(self._witness.checkpoint + 1)))
        else:
            self.tell(inputs.Resume())

    def tell(self, fact: inputs.Input) -> None:
        if self.over:
            return
        world, machine = self._world, self._machine
        for effect in machine.react(fact, world.now):
            self._perform(effect)
        if machine.unsettled > world.options.max_in_flight:
            raise BrokenInvariant(f"{machine.unsettled} events are held in memory")
        if machine.wake_at is not None and machine.wake_at != self._wake_at:
            self._wake_at = machine.wake_at
            world.agenda.at(max(world.now, machine.wake_at), self._owner.do(self._wake))

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
            case effects.Skipped():
                self._witness.set_aside([effect.event.position])
            case effects.Report():
                self._later(0.02, lambda: self._report(effect))
            case effects.Refuse():
                pass

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
        world = self._world
        if not self._owner.trusts_lease():
            self._later(0.05, lambda: self._deliver(effect))
            return
        row = world.coordination.row(KEY)
        progress = row.progress if row.epoch == self.grant.epoch else None
        self._witness.started(self._seen, effect.delivery_id, effect.events, progress)
        positions = {event.position for event in effect.events}
        if positions & world.deadly and self._kills_owner():
            self._owner.do(self._owner.crash)()
            return
        if len(effect.events) > 1 and effect.commit is None and world.chance(world.weather.answered_in_parts):
            self._later(0.02, lambda: self._answer_part(effect))
        world.agenda.at(
            world.now + 0.02 + world.random.random() * 0.03, self._owner.do(lambda: self._end(effect, positions))
        )

    def _answer_part(self, effect: effects.Deliver) -> None:
        first = effect.events[0]
        if first.position not in self._world.poison | self._world.deadly:
            self._witness.partly_handled(self._seen, first)
            self.tell(inputs.Handled(effect.delivery_id, frozenset((first.number,))))

    def _kills_owner(self) -> bool:
        # With handler actors, a handler that ends its process ends only that.
        return self._world.options.consumers == 0

    def _end(self, effect: effects.Deliver, positions: set[int]) -> None:
        """Let the handler return; it runs on even when the owner has lost the lease."""
        world, weather = self._world, self._world.weather
        fails = bool(positions & world.poison) or world.chance(weather.handler_fails)
        dies = bool(positions & world.deadly) or world.chance(weather.consumer_dies)
        done = not fails and not (dies and bool(positions & world.deadly))
        answer: inputs.Input = inputs.Handled(effect.delivery_id)
        if done and effect.commit is not None:
            done, answer = self._commit(effect)
        self._witness.ended(self._seen, effect.delivery_id, effect.events, handled=done)
        if done and effect.commit is not None:
            self._wrote()
        if dies:
            answer = inputs.Failed(effect.delivery_id, "the consumer is gone", lost=True)
        elif fails:
            answer = inputs.Failed(effect.delivery_id, "the handler failed", mendable=world.random.random() > 0.1)
        self._answer(answer)

    def _commit(self, effect: effects.Deliver) -> tuple[bool, inputs.Input]:
        assert isinstance(effect.commit, Progress)
        try:
            at_once(self._world.checkpoints.save(self.grant, effect.commit, conn=_Transaction()))
        except StaleEpoch as error:
            return False, inputs.LeaseLost(str(error))
        except UnexpectedAck as error:
            return False, inputs.Failed(effect.delivery_id, str(error))
        if self._world.chance(self._world.weather.save_fails):
            return True, inputs.Failed(effect.delivery_id, "the connection broke while committing")
        return True, inputs.Handled(effect.delivery_id)

    def _save(self, effect: effects.Save) -> None:
        world = self._world
        if world.chance(world.weather.save_fails):
            self._answer(inputs.SaveFailed("no answer"))
            return
        try:
            if effect.rewind:
                at_once(world.checkpoints.rewind(self.grant, effect.progress))
            else:
                at_once(world.checkpoints.save(self.grant, effect.progress))
        except StaleEpoch as error:
            self._answer(inputs.LeaseLost(str(error)))
            return
        if effect.rewind:
            self._seen = RunWitness(self.grant.epoch, effect.progress.checkpoint, busy=self._seen.busy)
        self._wrote(rewind=effect.rewind)
        lost = world.chance(world.weather.save_fails) and not effect.rewind
        self._answer(inputs.SaveFailed("no answer") if lost else inputs.Saved())

    def _wrote(self, *, rewind: bool = False) -> None:
        checkpoint = self._world.coordination.row(KEY).progress.checkpoint
        self._witness.wrote(self.grant.epoch, checkpoint, rewind=rewind)

    def _reload(self) -> None:
        try:
            self._answer(inputs.Reloaded(at_once(self._world.checkpoints.load(self.grant))))
        except StaleEpoch as error:
            self._answer(inputs.LeaseLost(str(error)))

    def _park(self, effect: effects.Park) -> None:
        if self._world.chance(self._world.weather.save_fails):
            self._answer(inputs.ParkFailed(effect.token, "no answer"))
            return
        try:
            at_once(self._world.checkpoints.park(self.grant, effect.parked))
        except StaleEpoch as error:
            self._answer(inputs.LeaseLost(str(error)))
            return
        self._witness.set_aside(each.event.position for each in effect.parked)
        self._wrote()
        self._answer(inputs.Parked(effect.token))

    def _report(self, effect: effects.Report) -> None:
        try:
            at_once(self._world.checkpoints.report(self.grant, effect.phase.value, effect.reason))
        except StaleEpoch as error:
            self._answer(inputs.LeaseLost(str(error)))

    def __repr__(self) -> str:
        machine = self._machine
        return f"epoch={self.grant.epoch} {machine.condition!r} unsettled={machine.unsettled} wake_at={machine.wake_at}"


class _Transaction:
    """A handler's transaction that is always committed."""

    def on_rollback(self, undo: Callable[[], None]) -> None:
        """Nothing is ever undone."""
