"""Drives a machine by hand: gives it facts, and answers its effects when the test says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from headwater.storage.leases import Halt, Progress
from headwater.storage.model import EventPage, RecordedEvent
from headwater.subscriptions.core import effects, inputs
from headwater.subscriptions.core.machine import Machine
from headwater.subscriptions.core.sieve import Sieve
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.testing.builders import recorded

E = TypeVar("E", bound=effects.Effect)


class Steering:
    """A machine, the events that it can read, and what it asked for.

    Reads, saves, parks and retries are answered at once unless ``hold`` names them; deliveries wait for ``handle`` or
    ``fail``.
    """

    def __init__(
        self,
        events: Sequence[RecordedEvent] | int = 0,
        *,
        progress: Progress | None = None,
        parked_keys: Iterable[str] = (),
        sieve: Sieve | None = None,
        halt: Halt | None = None,
        hold: tuple[type[Any], ...] = (),
        **options: Any,
    ) -> None:
        self.events = [recorded(n) for n in range(1, events + 1)] if isinstance(events, int) else list(events)
        self.now = 100.0
        self.hold = hold
        self.options = SubscriptionOptions(**options)
        self.seen: list[effects.Effect] = []
        self.held: list[effects.Effect] = []
        self.open: dict[int, effects.Deliver] = {}
        self.machine = Machine(
            self.options,
            inputs.Granted(progress or Progress(0), frozenset(parked_keys), halt),
            sieve or Sieve(),
            consumers=range(max(1, self.options.least_consumers)),
            random=lambda: 0.0,
            now=self.now,
        )
        self.tell(inputs.Tick())

    def tell(self, fact: inputs.Input) -> None:
        """Give a fact, and answer what follows from it."""
        for effect in self.machine.react(fact, self.now):
            self.seen.append(effect)
            if isinstance(effect, effects.Deliver):
                self.open[effect.delivery_id] = effect
            elif isinstance(effect, self.hold):
                self.held.append(effect)
            else:
                self.answer(effect)

    def answer(self, effect: effects.Effect) -> None:
        """Let an effect succeed."""
        match effect:
            case effects.Read():
                self.tell(inputs.PageRead(effect.read_id, self.page(effect.after, effect.limit)))
            case effects.Save():
                self.tell(inputs.Saved())
            case effects.Park():
                self.tell(inputs.Parked(effect.token))
            case effects.Halt():
                self.tell(inputs.HaltWritten(effect.number))
            case effects.Retry():
                self.tell(inputs.RetryWritten(effect.position))

    def release(self) -> None:
        """Let everything that was held succeed, and hold nothing any more."""
        self.hold = ()
        held, self.held = self.held, []
        for effect in held:
            self.answer(effect)

    def page(self, after: int, limit: int) -> EventPage:
        """Return what a store would."""
        found = [event for event in self.events if event.number > after]
        head = self.events[-1].number if self.events else 0
        cut = len(found) > limit
        return EventPage(found[:limit], found[limit - 1].number if cut else max(after, head), head)

    def append(self, *events: RecordedEvent, hint: bool = True) -> None:
        """Store more events."""
        self.events += events
        if hint:
            self.tell(inputs.HeadSeen(events[-1].position))

    def later(self, seconds: float) -> None:
        """Let time pass, with a tick whenever the machine asked for one."""
        end = self.now + seconds
        while self.machine.wake_at is not None and self.machine.wake_at <= end:
            assert self.machine.wake_at >= self.now, "a time that is over was asked for"
            before = self.now, len(self.seen)
            self.now = max(self.now, self.machine.wake_at)
            self.tell(inputs.Tick())
            assert (self.now, len(self.seen)) != before or self.machine.wake_at != self.now, "a busy loop"
        self.now = end

    def handle(self, delivery_id: int | None = None) -> None:
        """Let the oldest open delivery, or this one, be handled."""
        found = self._take(delivery_id)
        self.tell(inputs.Handled(found.delivery_id))

    def fail(self, delivery_id: int | None = None, error: str = "broken", **more: Any) -> None:
        """Let the oldest open delivery, or this one, fail."""
        found = self._take(delivery_id)
        self.tell(inputs.Failed(found.delivery_id, error, **more))

    def handle_all(self) -> None:
        """Let everything be handled, also what follows."""
        while self.open:
            self.handle()

    def _take(self, delivery_id: int | None) -> effects.Deliver:
        return self.open.pop(next(iter(self.open)) if delivery_id is None else delivery_id)

    def all(self, kind: type[E]) -> list[E]:
        """Return every effect of a kind so far."""
        return [effect for effect in self.seen if isinstance(effect, kind)]

    def last(self, kind: type[E]) -> E:
        """Return the latest effect of a kind."""
        return self.all(kind)[-1]

    @property
    def delivered(self) -> list[list[int]]:
        """The numbers of each delivery so far."""
        return [[event.number for event in each.events] for each in self.all(effects.Deliver)]

    @property
    def in_hand(self) -> dict[int, list[int]]:
        """The numbers that each consumer has now."""
        return {each.consumer: [event.number for event in each.events] for each in self.open.values()}

    @property
    def saved(self) -> Progress:
        """The progress that was last asked to be saved, without totals."""
        return replace(self.last(effects.Save).progress, delivered=0, redelivered=0)

    @property
    def phase(self) -> str:
        return self.machine.condition.phase.value


def streams(*names: str) -> list[RecordedEvent]:
    """Build events 1, 2, 3, ... of these streams."""
    return [recorded(position, name) for position, name in enumerate(names, 1)]


def by(function: Callable[[RecordedEvent], Any]) -> Sieve:
    """Build a sieve with a key function."""
    return Sieve(key=function)
