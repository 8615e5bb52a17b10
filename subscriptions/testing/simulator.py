"""Seeded histories: several owners, crashes, freezes, lost leases, lost and invented hints, late and doubled answers.

``simulate(seed)`` plays one history and raises BrokenInvariant, with the seed in it, when something happens that never
may; the same seed plays the same history again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final

from headwater.storage.checks import check_number
from headwater.storage.errors import InvalidArgument
from headwater.storage.leases import Grant, ParkedEvent
from headwater.storage.memory.subscriptions import MemoryLeases
from headwater.storage.model import MAX_BIGINT, RecordedEvent
from headwater.subscriptions.checks import check_count, check_kind
from headwater.subscriptions.core import inputs
from headwater.subscriptions.core.sieve import Sieve
from headwater.subscriptions.keys import sieve_of
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.testing.invariants import BrokenInvariant, Witness
from headwater.subscriptions.testing.program import Events, Program
from headwater.subscriptions.testing.simulated_run import SimulatedRun
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
    handled: tuple[RecordedEvent, ...] = ()
    """What a handler of yours has handled, each event once, in the order of the store: its effects are there."""
    parked: tuple[ParkedEvent, ...] = ()
    """What is set aside at the end, by position."""


def simulate(
    seed: int,
    *,
    steps: int = 1000,
    weather: Weather | None = None,
    owners: int = 3,
    handler: Any = None,
    options: SubscriptionOptions | None = None,
    events: Events | None = None,
) -> History:
    """Play one history of at least ``steps`` steps, then let the world come to rest.

    With a ``handler`` of yours, a function or a class, sync or async, of one event or a batch, that one is called,
    under your ``options``, for ``events``: pairs of a stream's name and a NewEvent, or a function that draws such a
    pair from a ``random.Random``. Owners crash before it and after it, what it has done is not noted in time, so it is
    done again, and two owners may be at it at once. ``weather`` is then one without poison: whatever fails for good is
    your own. Afterwards compare what it has made with what should be there, for instance with ``History.handled``.

    Raises BrokenInvariant, with the seed in its text; InvalidArgument.
    """
    check_number("seed", seed, -MAX_BIGINT)
    check_count("steps", steps)
    check_count("owners", owners)
    if weather is not None:
        check_kind("weather", weather, Weather)
    if handler is None:
        if options is not None or events is not None:
            raise InvalidArgument("options" if events is None else "events", "means something with a handler only")
        return _play(_Simulation(seed, weather or Weather(), owners), steps)
    weather = Weather(poison=0, deadly=0) if weather is None else weather
    with closing(Program(handler, options, events)) as program:
        return _play(_Simulation(seed, replace(weather, answered_in_parts=0), owners, program), steps)


def _play(simulation: _Simulation, steps: int) -> History:
    try:
        return simulation.play(steps)
    except BrokenInvariant as broken:
        raise BrokenInvariant(f"seed {simulation.seed}, {simulation.world.now:.3f} s: {broken}") from broken


class _Simulation:
    """One history."""

    def __init__(self, seed: int, weather: Weather, owners: int, program: Program | None = None) -> None:
        self.world = World(seed, weather, program)
        options = self.world.options
        self.sieve = Sieve() if program is None else sieve_of(options)
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
        handled = {} if world.program is None else world.program.handled
        parked = world.coordination.row(KEY).parked
        return History(
            self.seed,
            taken,
            len(world.events),
            calls,
            self.grants,
            self.crashes,
            tuple(handled[position] for position in sorted(handled)),
            tuple(parked[position] for position in sorted(parked)) if world.program is not None else (),
        )

    def _at_rest(self) -> bool:
        row = self.world.coordination.row(KEY)
        if row.progress.checkpoint < self.world.head or row.progress.in_flight_to > row.progress.checkpoint:
            return False
        present = Grant(KEY, row.epoch, "", row.holder or 0, row.progress)
        return not at_once(self.world.parking.to_retry(present))

    def _unrest(self) -> str:
        row = self.world.coordination.row(KEY)
        return f"no rest: {row.progress}, {row.phase}: {row.reason}, head {self.world.head}, {self.owners}"

    def _append(self) -> None:
        if not self._appends:
            return
        world = self.world
        for event in world.append():
            if world.program is None or world.program.wants(event):
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
        self._run: SimulatedRun | None = None
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
                self._run = SimulatedRun(world, self._simulation.witness, self._simulation.sieve, self, grant)
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
        elif world.chance(weather.network_slows * 10):
            self._run.slow_down()
        elif world.chance(weather.asked_again * 10):
            self._run.decide_parked()
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
