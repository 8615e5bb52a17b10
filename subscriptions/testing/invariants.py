"""What must hold after every step of a simulated history.

Watches from outside: it sees what the handler saw and what became durable, never the inside of a machine.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from headwater.storage.leases import Progress
from headwater.storage.model import RecordedEvent
from headwater.subscriptions.options import Delivery


class BrokenInvariant(AssertionError):
    """Something happened in a simulated history that never may."""


@dataclass(slots=True)
class RunWitness:
    """What is known of one grant."""

    epoch: int
    start: int
    """The checkpoint that it was granted with."""
    busy: dict[str, int] = field(default_factory=dict)
    """Which delivery has a key in flight."""
    handled: set[int] = field(default_factory=set)
    reached: dict[str, int] = field(default_factory=dict)
    """How far into a key's sequence everything is settled."""


class _Turns:
    """When the next event of a retry with a rate may be begun."""

    def __init__(self, every: float) -> None:
        self.every = every
        self.not_before = 0.0


class RetryWitness:
    """Keeps what operators asked of parked events, and objects.

    10. What was taken back, or is beyond a limit, is begun only when somebody asks for it again. What was given up is
        begun only when an owner, who read it again, has parked it anew: nobody's earlier word has to do with that.
    11. Between two events of one retry that are begun lies the time that its rate asks for.
    """

    def __init__(self) -> None:
        self._unasked: set[int] = set()
        self._given_up: set[int] = set()
        self._turns: dict[int, _Turns] = {}

    def asked(self, positions: Iterable[int], left: Iterable[int], every: float | None) -> None:
        """These are to be handled again; the others of their keys are not."""
        turns = None if every is None else _Turns(every)
        self.left(left)
        for position in positions:
            self._unasked.discard(position)
            self._turns.pop(position, None)
            if turns is not None:
                self._turns[position] = turns

    def left(self, positions: Iterable[int]) -> None:
        """These wait for an operator."""
        for position in positions:
            self._unasked.add(position)
            self._turns.pop(position, None)

    def settled(self, position: int) -> None:
        """It is handled: when it is parked anew, after a rewind, no retry has to do with it."""
        self._unasked.discard(position)
        self._turns.pop(position, None)

    def given_up(self, positions: Iterable[int]) -> None:
        """An operator has discarded these."""
        for position in positions:
            self.settled(position)
            self._given_up.add(position)

    def parked(self, positions: Iterable[int]) -> None:
        """An owner has written down that these are parked: anew, where they were given up."""
        self._given_up.difference_update(positions)

    def began(self, position: int, now: float) -> None:
        """An attempt at a parked event was counted, and is to be made."""
        _require(position not in self._given_up, f"parked {position} was begun, though it was given up")
        _require(position not in self._unasked, f"parked {position} was begun, and nobody had asked for it")
        turns = self._turns.get(position)
        if turns is not None:
            _require(now >= turns.not_before, f"parked {position} was begun at {now}, before {turns.not_before}")
            turns.not_before = now + turns.every * (1 - 1e-9)


class Witness:
    """Keeps what the world saw, and objects.

    1. Order: when an event reaches the handler, every earlier event of its key since the grant's checkpoint is
       settled, and no other delivery of the key is in flight.
    2. Nothing lost: everything up to the durable checkpoint is handled, skipped or durably parked.
    3. The checkpoint never falls, except by a rewind, and once by each, and at-most-once by what nobody took.
    4. At most one owner: a write is accepted only under the latest epoch.
    5. Exactly-once effects are there once; at-most-once handlers are called once.
    6. No event reaches the handler before the durable progress says that it may, and counts the attempt at it.
    7. No event reaches the handler while an earlier one of its key is durably parked. A parked event that is handled
       again comes after everything of its key before it, and to an at-most-once handler when an operator asks for it.
       Once that is settled it is not parked again, but after a rewind.
    8. What was rewound is passed only when it is settled once more.
    9. An owner that ends in order leaves nothing behind the checkpoint that no handler got: at-most-once loses by a
       crash only.
    """

    def __init__(self, delivery: Delivery, key_of: Callable[[RecordedEvent], str | None]) -> None:
        self.checkpoint = 0
        self.settled: set[int] = set()
        """Positions that were handled, skipped or parked, by whomever."""
        self.calls: dict[int, int] = defaultdict(int)
        self._delivery = delivery
        self._key_of = key_of
        self._sequences: dict[str, list[int]] = defaultdict(list)
        self._aside: set[int] = set()
        self._closed: set[int] = set()
        """Positions that were parked, and handled and settled afterwards."""
        self._asked: dict[int, int] = defaultdict(int)
        self._committed: set[int] = set()
        self._expected: list[int] = []
        self._checked = 0
        self._epoch = 0

    def appended(self, event: RecordedEvent) -> None:
        """An event was stored that the subscription is to deliver."""
        self._expected.append(event.position)
        key = self._key_of(event)
        if key is not None:
            self._sequences[key].append(event.position)

    def granted(self, epoch: int, progress: Progress) -> RunWitness:
        """An owner got the lease."""
        _require(epoch > self._epoch, f"epoch {epoch} was granted after {self._epoch}")
        self._epoch = epoch
        return RunWitness(epoch, progress.checkpoint)

    def started(
        self,
        run: RunWitness,
        delivery_id: int,
        events: Sequence[RecordedEvent],
        progress: Progress | None,
        parked: Collection[int],
        attempt: int = 0,
    ) -> None:
        """The handler was called.

        ``progress`` is what was durable then, or None when the lease was lost meanwhile; ``parked`` are the positions
        of the events that were durably parked. ``attempt`` is which one this is, where that must be durable, too.
        """
        if progress is not None and self._delivery is not Delivery.AT_MOST_ONCE:
            _require(progress.attempt >= attempt, f"attempt {attempt} was made before that was durable: {progress}")
        batch: set[int] = set()
        for event in events:
            self.calls[event.position] += 1
            if self._delivery is Delivery.AT_MOST_ONCE:
                _require(self.calls[event.position] == 1, f"{event} was handed out twice")
            if progress is not None:
                covered = max(progress.in_flight_to, progress.checkpoint)
                _require(event.position <= covered, f"{event} was handed out before that was durable: {progress}")
            key = self._key_of(event)
            if key is not None:
                self._check_order(run, delivery_id, event, key, batch)
                if progress is not None:
                    self._check_parked(event, key, parked)
            batch.add(event.position)

    def asked(self, positions: Iterable[int]) -> None:
        """An operator wants these parked events to be handled again."""
        for position in positions:
            self._asked[position] += 1

    def retried(
        self, run: RunWitness, delivery_id: int, event: RecordedEvent, parked: Collection[int], *, owner: bool
    ) -> None:
        """The handler was called with a parked event again, by the present ``owner`` or by one that lost the lease."""
        self.calls[event.position] += 1
        key = self._key_of(event)
        if key is not None:
            other = run.busy.setdefault(key, delivery_id)
            _require(other == delivery_id, f"{event} was handed out while delivery {other} had the same key")
        if self._delivery is Delivery.AT_MOST_ONCE:
            most = 1 + self._asked[event.position]
            _require(self.calls[event.position] <= most, f"{event} was handed out more than {most} times")
        if not owner or key is None:
            return
        self._check_parked(event, key, parked)
        if self._delivery is not Delivery.AT_MOST_ONCE:
            sequence = self._sequences[key]
            early = [p for p in sequence if p < event.position and p not in self.settled]
            _require(not early, f"parked {event} was handed out before {early} of the same key")

    def closed(self, position: int) -> None:
        """It was written down that this parked event is settled."""
        self._closed.add(position)

    def parked(self, positions: Collection[int]) -> None:
        """These are parked now, after a write."""
        again = self._closed.intersection(positions)
        _require(not again, f"{sorted(again)} was parked again though it was settled")

    def _check_parked(self, event: RecordedEvent, key: str, parked: Collection[int]) -> None:
        early = [p for p in self._sequences[key] if p < event.position and p in parked]
        _require(not early, f"{event} was handed out while {early} of the same key were parked")

    def _check_order(self, run: RunWitness, delivery_id: int, event: RecordedEvent, key: str, batch: set[int]) -> None:
        other = run.busy.setdefault(key, delivery_id)
        _require(other == delivery_id, f"{event} was handed out while delivery {other} had the same key")
        sequence = self._sequences[key]
        index = run.reached.get(key)
        if index is None:
            index = bisect_right(sequence, run.start)
        while index < len(sequence) and sequence[index] < event.position:
            earlier = sequence[index]
            known = earlier in run.handled or earlier in self._aside
            if not known:
                _require(earlier in batch, f"{event} was handed out before {earlier} of the same key")
                break
            index += 1
        run.reached[key] = index

    def ended(self, run: RunWitness, delivery_id: int, events: Sequence[RecordedEvent], *, handled: bool) -> None:
        """The handler has returned, or was ended; ``handled`` when its effects are there."""
        for key in [key for key, holder in run.busy.items() if holder == delivery_id]:
            del run.busy[key]
        if handled:
            positions = [event.position for event in events]
            if self._delivery is Delivery.EXACTLY_ONCE:
                twice = self._committed.intersection(positions)
                _require(not twice, f"effects were committed twice for {sorted(twice)}")
                self._committed.update(positions)
            run.handled.update(positions)
            self.settled.update(positions)

    def partly_handled(self, run: RunWitness, event: RecordedEvent) -> None:
        """One event of a delivery is handled, and its consumer has the others still."""
        run.handled.add(event.position)
        self.settled.add(event.position)

    def set_aside(self, positions: Iterable[int]) -> None:
        """These events were skipped, or are durably parked."""
        positions = tuple(positions)
        self.settled.update(positions)
        self._aside.update(positions)

    def wrote(self, epoch: int, checkpoint: int, *, rewind: bool = False, back: bool = False) -> None:
        """A write under ``epoch`` was accepted, and this is the durable checkpoint now."""
        _require(epoch == self._epoch, f"a write of epoch {epoch} was accepted although {self._epoch} was granted")
        may_fall = rewind or back
        _require(may_fall or checkpoint >= self.checkpoint, f"it fell from {self.checkpoint} to {checkpoint}")
        self.checkpoint = checkpoint
        if rewind:
            self._rewound(checkpoint)
        if self._delivery is Delivery.AT_MOST_ONCE:
            return
        while self._checked < len(self._expected) and self._expected[self._checked] <= checkpoint:
            position = self._expected[self._checked]
            _require(position in self.settled, f"the checkpoint {checkpoint} passed {position}, which is not settled")
            self._checked += 1

    def _rewound(self, checkpoint: int) -> None:
        """Count as settled what the checkpoint was set beyond, as somebody asked for it, and nothing after that."""
        self._closed.clear()
        self._checked = bisect_right(self._expected, checkpoint)
        self.settled = set(self._expected[: self._checked])

    def let_go(self, run: RunWitness, checkpoint: int) -> None:
        """The owner has ended in order, and leaves this checkpoint."""
        lost = [
            position
            for position in self._expected
            if run.start < position <= checkpoint and position not in self.settled and not self.calls.get(position)
        ]
        _require(not lost, f"nobody got {lost} though the checkpoint {checkpoint} has passed that")

    def missing(self) -> list[int]:
        """Return what is not settled though it was stored: nothing may be left when the world has come to rest."""
        if self._delivery is Delivery.AT_MOST_ONCE:
            return [position for position in self._expected if position > self.checkpoint]
        return [position for position in self._expected if position not in self.settled]


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise BrokenInvariant(problem)
