"""The outside of a simulated history: the store of events, the durable rows, the agenda of what happens when.

Everything random comes from one seeded generator, so a seed is a history.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, fields
from datetime import timedelta
from itertools import count
from random import Random
from typing import Any, Final, TypeVar

from headwater.storage.filters import matches
from headwater.storage.leases import PartitionKey
from headwater.storage.memory.subscriptions import MemoryCheckpoints, MemoryCoordination, MemoryParking
from headwater.storage.model import EventPage, RecordedEvent
from headwater.subscriptions.checks import check_share
from headwater.subscriptions.options import Delivery, OnFailure, RetryPolicy, SubscriptionOptions
from headwater.subscriptions.testing.builders import recorded
from headwater.subscriptions.testing.clock import VirtualClock
from headwater.subscriptions.testing.invariants import RetryWitness
from headwater.subscriptions.testing.program import Program

T = TypeVar("T")

KEY: Final = PartitionKey("simulated", 0, 1)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    work.close()
    raise RuntimeError("the in-memory adapters never wait")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How much goes wrong; each number is a probability for one occasion."""

    read_fails: float = 0.03
    save_fails: float = 0.03
    save_late: float = 0.8
    """Of the writes that were not answered, the share that is executed after all: late, after what was sent since."""
    network_slows: float = 0.01
    network_slow: float = 0.8
    """Whether the network is slow when a rewind is asked for, so that half of what is written is not answered."""
    handler_fails: float = 0.05
    consumer_dies: float = 0.01
    hint_lost: float = 0.3
    hint_invented: float = 0.05
    answered_twice: float = 0.3
    answered_in_parts: float = 0.1
    owner_crashes: float = 0.004
    owner_freezes: float = 0.004
    lease_lost: float = 0.004
    commanded: float = 0.01
    asked_again: float = 0.02
    poison: float = 0.02
    """The share of events that no attempt can handle."""
    deadly: float = 0.01
    """The share of events that end the process of their handler at every attempt."""

    def __post_init__(self) -> None:
        for each in fields(self):
            check_share(each.name, getattr(self, each.name), 0, 1)


@dataclass(frozen=True, slots=True)
class Agenda:
    """What happens when."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    _entries: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: Any = field(default_factory=count)

    def at(self, moment: float, what: Callable[[], None]) -> None:
        """Let something happen at a moment."""
        heapq.heappush(self._entries, (moment, next(self._numbers), what))

    def step(self) -> None:
        """Let the next thing happen."""
        moment, _, what = heapq.heappop(self._entries)
        self.clock.advance_to(moment)
        what()


class World:
    """Events, rows and chance."""

    def __init__(self, seed: int, weather: Weather, program: Program | None = None) -> None:
        self.random = Random(seed)
        self.weather = weather
        self.program = program
        """What runs in place of handlers that do nothing."""
        self.agenda = Agenda()
        self.options = self._choose_options() if program is None else program.options
        self.coordination = MemoryCoordination(self.agenda.clock.monotonic)
        self.checkpoints = MemoryCheckpoints(self.coordination)
        self.parking = MemoryParking(self.coordination)
        self.retries = RetryWitness()
        self.events: list[RecordedEvent] = []
        self.poison: set[int] = set()
        self.deadly: set[int] = set()
        self.replay_until = 0
        """Up to here everything was settled before an operator rewound it."""
        self.calm = False
        """True at the end of a history, when nothing goes wrong any more."""

    def _choose_options(self) -> SubscriptionOptions:
        random = self.random
        delivery = random.choice([Delivery.AT_LEAST_ONCE] * 4 + [Delivery.EXACTLY_ONCE] * 2 + [Delivery.AT_MOST_ONCE])
        most = random.choice([4, 10, 40])
        return SubscriptionOptions(
            delivery=delivery,
            consumers=random.choice([0, 2, 3]) if delivery is Delivery.AT_LEAST_ONCE else 0,
            batch_size=random.choice([1, 1, 2, 5]),
            read_size=random.choice([2, 5, 20]),
            max_in_flight=most,
            checkpoint_events=random.choice([1, 3, 10, 100]),
            checkpoint_interval=timedelta(seconds=random.choice([0.02, 0.2])),
            retry=RetryPolicy(
                attempts=random.choice([1, 2, 4]),
                first_delay=timedelta(seconds=0.01),
                max_delay=timedelta(seconds=0.5),
                then=random.choice([OnFailure.PARK, OnFailure.PARK, OnFailure.SKIP, OnFailure.STOP]),
            ),
            breaker=random.choice([2, 4, 20, 20]),
        )

    @property
    def now(self) -> float:
        """The virtual time."""
        return self.agenda.clock.monotonic()

    def chance(self, probability: float) -> bool:
        """Draw; never True once the world is calm."""
        return self.random.random() < probability and not self.calm

    def soon(self, longest: float, what: Callable[[], None]) -> None:
        """Let something happen within ``longest`` seconds."""
        self.agenda.at(self.now + self.random.random() * longest, what)

    def append(self) -> list[RecordedEvent]:
        """Store a few more events, sometimes with a hole before them, as a hard delete leaves."""
        random, fresh = self.random, []
        position = self.events[-1].position if self.events else 0
        if random.random() < 0.05:
            position += random.randrange(1, 4)
        for _ in range(random.randrange(1, 6)):
            position += 1
            event = self._next_event(position)
            if event is None:
                break
            if random.random() < self.weather.poison:
                self.poison.add(position)
            elif random.random() < self.weather.deadly:
                self.deadly.add(position)
            fresh.append(event)
        self.events += fresh
        return fresh

    def _next_event(self, position: int) -> RecordedEvent | None:
        if self.program is not None:
            return self.program.next_event(self.random, position)
        return recorded(position, f"stream-{self.random.randrange(6)}")

    @property
    def head(self) -> int:
        """The highest position."""
        return self.events[-1].position if self.events else 0

    def read(self, after: int, limit: int) -> EventPage:
        """Read a page, as a store would."""
        start = bisect_right(self.events, after, key=lambda event: event.position)
        events = self.events[start : start + limit]
        if self.program is not None and self.program.options.where:
            where = self.program.options.where
            events = [event for event in self.events[start:] if matches(where, event)][:limit]
        short = len(events) < limit
        return EventPage(events, max(after, self.head) if short else events[-1].position, self.head)
