"""Every event that was read and is not settled: waiting, in flight, to be tried again, or being parked.

Decides nothing about failures, saves or phases; the machine does.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import count

from headwater.storage.model import EventPage, RecordedEvent
from headwater.subscriptions.core.batch import Batch
from headwater.subscriptions.core.lanes import InOrder, Lanes, Order
from headwater.subscriptions.core.sieve import Sieve
from headwater.subscriptions.core.window import Window
from headwater.subscriptions.ports import ParkedEvent

SAMPLE = 16
"""Of how many events of a large batch it is looked which keys they have."""

PIECES = 16
"""Into so many pieces a suspect range is cut: four crashes in a row narrow 4,096 numbers down to the culprit."""


class Work:
    """Where each event of the window is.

    1. Every unsettled place is in exactly one of: the suspects, the order, a batch, the events being parked, those that
       are held.
    2. While there are suspects, nothing else is handed out.
    3. A blocked key has nothing in the suspects or the order: its events are parked behind the first one, or held
       until it is known whether anything gets through at all.
    4. Events are parked in the order in which they were set aside, one group after the other: nothing is durably behind
       an event that is not durably parked, or it would be handled again before it.
    """

    def __init__(self, sieve: Sieve, *, start: int, parallel: bool, batch_size: int) -> None:
        self.window = Window(start)
        self.in_flight: dict[int, tuple[Batch, int]] = {}
        """Batches by delivery id, with the consumer that has each."""
        self.blocked: set[str] = set()
        """The keys with parked events: later ones wait behind them."""
        self.parked = 0
        """How many events were durably parked under this grant."""
        self._aside: list[tuple[int, ParkedEvent]] = []
        self._held: list[tuple[int, str]] = []
        """Places with their keys that would go behind parked events, and are kept as they are."""
        self._maybe_parked: set[int] = set()
        """Places whose parking failed: whether it took effect is unknown."""
        self._fell_behind: Counter[str] = Counter()
        self._being_parked: list[tuple[int, ParkedEvent]] = []
        self._park_token = 0
        self._sieve = sieve
        self._parallel = parallel
        self._batch_size = batch_size
        self._order: Order = Lanes() if parallel else InOrder()
        self._suspects = InOrder()
        self._suspect_to = 0
        self.suspect_attempt = 0
        """Which attempt the first delivery of each suspect is."""
        self._suspect_width = 0
        self._piece = 1
        self._ready: deque[Batch] = deque()
        self._later: list[tuple[float, int, Batch]] = []
        self._numbers = count(1)

    def suspect(self, up_to: int, attempt: int) -> None:
        """Treat everything up to this number as begun by an owner that died: small pieces, each counted first."""
        self._suspect_to = up_to
        self.suspect_attempt = attempt
        self._suspect_width = up_to - self.window.read_to
        self._piece = max(1, self._suspect_width // PIECES)

    @property
    def suspect_to(self) -> int:
        """Up to where events are suspect; 0 when none are."""
        return self._suspect_to

    def sole_suspect(self, batch: Batch) -> bool:
        """Whether the dead owner's last promise named this event and nothing else."""
        return len(batch.places) == 1 and self._suspect_width == 1

    @property
    def exclusive(self) -> bool:
        """Whether there is at most one batch at a time."""
        return not self._parallel or self._suspect_to > 0

    def admit(self, page: EventPage) -> list[tuple[int, str]]:
        """Take in a page; returns the places of which the user's selector or key function failed, with the error."""
        if self._suspect_to > page.head:
            # What was appended after the grant cannot have reached the owner before us.
            self._suspect_to = page.head
            self._piece = max(1, (page.head - self.window.watermark) // PIECES)
        sifted = self._sieve.sift(page.events, with_keys=self._parallel or bool(self.blocked))
        places = self.window.extend(sifted.events, page.read_to)
        faults = [(places[index], error) for index, error in sifted.faults.items()]
        unsuspected = not sifted.events or sifted.events[0].number > self._suspect_to
        if unsuspected and not faults and not self.blocked:
            self._order.add(places, sifted.keys)
            return faults
        suspects: list[int] = []
        others: list[int] = []
        keys: list[str | None] = []
        behind: list[tuple[int, str]] = []
        for index, event in enumerate(sifted.events):
            key = sifted.keys[index] if sifted.keys is not None else None
            if index in sifted.faults:
                continue
            if key is not None and key in self.blocked:
                behind.append((places[index], key))
            elif event.number <= self._suspect_to:
                suspects.append(places[index])
            else:
                others.append(places[index])
                keys.append(key)
        self._suspects.add(suspects, None)
        self._order.add(others, keys if self._parallel else None)
        self._park_behind(behind)
        return faults

    def next(self, now: float) -> Batch | None:
        """Take the batch that is to be delivered next, if there is one that may be."""
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        if self._ready:
            return self._ready.popleft()
        if self.exclusive and (self.in_flight or self._later):
            return None
        if self._suspect_to:
            if self._suspects:
                return self._next_suspects()
            if self.window.read_to < self._suspect_to:
                return None
            self._suspect_to = 0
        places, keys = self._order.take(self._batch_size)
        return Batch(places, keys) if places else None

    def _next_suspects(self) -> Batch:
        places, _ = self._suspects.take(self._batch_size)
        last = self.window.event(places[0]).number + self._piece - 1
        fitting = sum(1 for place in places if self.window.event(place).number <= last)
        if fitting < len(places):
            self._suspects.put_back(places[fitting:])
        return Batch(places[:fitting], attempt=self.suspect_attempt, counted=True)

    def put_back(self, batch: Batch) -> None:
        """Keep a batch that may not be delivered yet: it is the next one."""
        self._ready.appendleft(batch)

    def postpone(self, batch: Batch, until: float) -> None:
        """Keep a batch for its next attempt."""
        heapq.heappush(self._later, (until, next(self._numbers), batch))

    @property
    def next_attempt_at(self) -> float | None:
        """When the first of the postponed batches is due."""
        return self._later[0][0] if self._later else None

    def open_batches(self) -> Iterable[Batch]:
        """Every batch that is in flight, ready or postponed."""
        yield from (batch for batch, _ in self.in_flight.values())
        yield from self._ready
        yield from (batch for _, _, batch in self._later)

    def events(self, batch: Batch) -> list[RecordedEvent]:
        """Return the events of a batch."""
        return self.window.events(batch.places)

    def settle_part(self, batch: Batch, numbers: frozenset[int]) -> int:
        """Settle those events of a batch that have these numbers; the batch keeps the others. Returns how many."""
        if batch.parts is None:
            batch.parts = {self.window.event(place).number: place for place in batch.places}
        parts = batch.parts
        places = [parts.pop(number) for number in numbers if number in parts]
        self.window.settle(places)
        return len(places)

    def apart(self, batch: Batch) -> Batch:
        """Take a batch apart: return its first event as a batch of its own, which the others follow one by one."""
        batch.attempt += 1
        return Batch(
            batch.places[:1],
            batch.keys,
            attempt=batch.attempt,
            counted=batch.counted,
            rest=deque(batch.places[1:]),
            rest_attempt=batch.attempt,
        )

    def leave(self, batch: Batch) -> None:
        """Go on after a batch whose places are settled or being parked: with the rest of it, or with its keys free."""
        if not batch.rest:
            self._order.release(batch.keys)
            return
        place = batch.rest.popleft()
        follower = Batch(
            (place,),
            batch.keys,
            attempt=batch.rest_attempt,
            counted=batch.counted,
            rest=batch.rest,
            rest_attempt=batch.rest_attempt,
        )
        self._ready.appendleft(follower)

    def park(self, place: int, error: str, attempts: int, batch: Batch | None) -> str | None:
        """Set an event aside, and everything of its key that was read behind it; returns the key."""
        event = self.window.event(place)
        key = self._sieve.safe_key_of(event)
        self._aside.append((place, ParkedEvent(event, key, "failed", error, attempts)))
        if key is None or key in self.blocked:
            return key
        self.blocked.add(key)
        behind = self._suspects.withdraw(key, self._key_at) + self._order.withdraw(key, self._key_at)
        if batch is not None and batch.rest:
            mine = [place for place in batch.rest if self._key_at(place) == key]
            batch.rest = deque(place for place in batch.rest if self._key_at(place) != key)
            behind = mine + behind
        self._park_behind([(place, key) for place in behind])
        return key

    def _key_at(self, place: int) -> str | None:
        return self._sieve.safe_key_of(self.window.event(place))

    def some_keys(self, batch: Batch) -> Iterable[str | None]:
        """Return the keys of a batch that is unsettled, or of a sample of a large one."""
        if self._parallel:
            return batch.keys or (None,)
        places = batch.places
        if not places:
            return ()
        return {self._key_at(place) for place in {*places[:: -(-len(places) // SAMPLE)], places[-1]}}

    def fell_behind(self) -> Counter[str]:
        """Return how many events of each key were set aside behind an earlier one since this was last asked."""
        fell, self._fell_behind = self._fell_behind, Counter()
        return fell

    @property
    def untried(self) -> bool:
        """Whether there are unsettled events that nothing parked stands in the way of."""
        return self.window.unsettled > len(self._aside) + len(self._being_parked) + len(self._held)

    @property
    def held(self) -> int:
        """How many events are kept as they are, to go behind others or to be handed out."""
        return len(self._held)

    def hold_followers(self) -> None:
        """Keep what is to go behind others as it is, as far as nobody was asked to park it yet: else it may be."""
        aside, self._aside = self._aside, []
        for place, each in aside:
            if each.error is None and each.key is not None and place not in self._maybe_parked:
                self._held.append((place, each.key))
            else:
                self._aside.append((place, each))

    def release_held(self) -> None:
        """Let what was kept go behind what its key has parked."""
        if self._held:
            self.hold_followers()  # what came later goes behind it
            held, self._held = self._held, []
            self._set_behind(held)

    def free(self, keys: Iterable[str]) -> None:
        """Let later events of these keys, unless they are being parked, be handed out: those first that were kept."""
        freed = set(keys) - self.keys_being_parked()
        self.blocked -= freed
        for place, key in [each for each in self._held if each[1] in freed]:
            if self.window.event(place).number <= self._suspect_to:
                self._suspects.add((place,), None)
            else:
                self._order.add((place,), (key,))
        self._held = [each for each in self._held if each[1] not in freed]

    def _park_behind(self, behind: Sequence[tuple[int, str]]) -> None:
        self._fell_behind.update(key for _, key in behind)
        self._set_behind(behind)

    def _set_behind(self, behind: Sequence[tuple[int, str]]) -> None:
        self._aside += [(place, ParkedEvent(self.window.event(place), key, "behind", None, 0)) for place, key in behind]

    @property
    def to_park(self) -> bool:
        """Whether there are events that nobody was asked to park yet, and may be now."""
        return bool(self._aside) and not self._being_parked

    def begin_parking(self) -> tuple[int, list[ParkedEvent]]:
        """Take everything that was set aside, with the token under which it is to be parked."""
        self._being_parked, self._aside = self._aside, []
        self._park_token = next(self._numbers)
        return self._park_token, [parked for _, parked in self._being_parked]

    def end_parking(self, token: int) -> list[int]:
        """Return the places that are durably parked now; none when the token is not the one under way."""
        if token != self._park_token:
            return []
        places = [place for place, _ in self._being_parked]
        self._being_parked = []
        self._maybe_parked.difference_update(places)
        self.parked += len(places)
        return places

    def parking_failed(self, token: int) -> bool:
        """Keep what was being parked for another time; False when the token is not the one under way."""
        if token != self._park_token or not self._being_parked:
            return False
        self._maybe_parked.update(place for place, _ in self._being_parked)
        self._aside = self._being_parked + self._aside
        self._being_parked = []
        return True

    @property
    def parking(self) -> bool:
        """Whether events are set aside and not durably parked."""
        return bool(self._aside or self._being_parked)

    def keys_being_parked(self) -> set[str]:
        """Return the keys of these events."""
        return {parked.key for _, parked in self._being_parked + self._aside if parked.key is not None}

    def __bool__(self) -> bool:
        """Whether anything is on its way: in flight or being parked."""
        return bool(self.in_flight or self.parking)
