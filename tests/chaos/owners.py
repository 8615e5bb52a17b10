"""Judges whether a partition had one owner at a time, by when deliveries began.

The order is that of the machine's monotonic clock, which all processes share: a handler reads it first of all. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from tests.chaos.journal import Note

OLD_EPOCH = "begun under an older epoch"
OLD_PROCESS = "begun by a former process of the same epoch"
TWO_PROCESSES = "begun by a second process of the same epoch"


class Interruption(Protocol):
    """What a fault did that bears on owners."""

    @property
    def begun(self) -> float:
        """When it was made."""

    @property
    def seen(self) -> float:
        """When it had taken effect: what it froze was frozen by then."""

    @property
    def frozen(self) -> Sequence[int]:
        """The processes that it froze, each perhaps in the middle of a delivery."""

    @property
    def fenced(self) -> float:
        """From when on every former owner has certainly fenced itself or is gone."""


class Begun(NamedTuple):
    """A delivery that began."""

    time: float
    owned: tuple[str, int]
    consumer: int
    epoch: int
    process: int


class Double(NamedTuple):
    """A delivery that began when the partition had another owner already."""

    time: float
    owned: tuple[str, int]
    epoch: int
    process: int
    why: str


@dataclass(slots=True)
class _Partition:
    epoch: int = -1
    processes: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    """By epoch and consumer: its processes, in the order in which they began."""


class Owners:
    """Follows all partitions.

    A delivery is a double-owner delivery when it begins after one of a later epoch of its partition has begun, or after
    one of the same epoch and consumer has begun in a later process; and when another process begins one under an epoch
    whose handlers all run in their owner's process.

    Two kinds are allowed, and counted as late. A process that was frozen may begin one more for each partition, epoch
    and consumer: the one it was handing to the handler when it was frozen, so its *first* after that. And an owner
    whose session the server has ended may begin some until it must have noticed: until ``Interruption.fenced``.
    """

    def __init__(self, with_actors: Collection[str] = ()) -> None:
        self._with_actors = frozenset(with_actors)
        """The subscriptions whose handlers may run in actors, which are replaced under the same epoch."""
        self._begun: list[Begun] = []

    def feed(self, note: Note) -> None:
        """Take one delivery into account, in whatever order."""
        self._begun.append(Begun(note.begun, note.owned, note.consumer, note.epoch, note.process))

    def judged(self, interruptions: Sequence[Interruption]) -> tuple[list[Double], list[Double]]:
        """Return the double-owner deliveries: those that are wrong, and those that are late and allowed."""
        partitions: dict[tuple[str, int], _Partition] = {}
        before: dict[tuple[object, ...], float] = {}
        wrong: list[Double] = []
        late: list[Double] = []
        for begun in sorted(self._begun):
            why = self._why(partitions.setdefault(begun.owned, _Partition()), begun)
            lane = begun[1:]
            if why:
                allowed = any(_allows(each, begun, before.get(lane, float("-inf"))) for each in interruptions)
                double = Double(begun.time, begun.owned, begun.epoch, begun.process, why)
                (late if allowed else wrong).append(double)
            before[lane] = begun.time
        return wrong, late

    def _why(self, partition: _Partition, begun: Begun) -> str | None:
        if begun.epoch < partition.epoch:
            return OLD_EPOCH
        partition.epoch = begun.epoch
        # Without actors one process is the owner, whatever its consumers are called.
        actors = begun.owned[0] in self._with_actors
        processes = partition.processes.setdefault((begun.epoch, begun.consumer if actors else 0), [])
        if begun.process not in processes:
            processes.append(begun.process)
        if begun.process != processes[-1]:
            return OLD_PROCESS
        return TWO_PROCESSES if len(processes) > 1 and not actors else None


def _allows(interruption: Interruption, begun: Begun, before: float) -> bool:
    """Whether a fault explains a delivery; ``before`` is when its process began the one before in the same place."""
    first = begun.process in interruption.frozen and before < interruption.seen <= begun.time
    return first or interruption.begun <= begun.time <= interruption.fenced
