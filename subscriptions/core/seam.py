"""What earlier sets of a subscription's partitions had settled: nobody delivers that again.

When the number of partitions changes, each old one leaves a mark: up to where it had settled the events that fell to
it. The new ones begin at the lowest mark and leave out what the marks say. Never looks at anything but the event.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from headwater.storage.model import RecordedEvent

KeyFunction: TypeAlias = Callable[[RecordedEvent], Any]


def share_of(key: str | None, position: int, partitions: int) -> int:
    """Return which of so many partitions has the events of a key, or an event without one."""
    if partitions == 1:
        return 0
    # Not hash(): it differs from process to process.
    word = key if key is not None else str(position)
    return zlib.crc32(word.encode()) % partitions


def key_of(event: RecordedEvent, function: KeyFunction | None) -> str | None:
    """Return an event's partition key; its stream when there is no function. Raises whatever the function raises."""
    if function is None:
        return event.stream
    key = function(event)
    return key if key is None or type(key) is str else str(key)


@dataclass(frozen=True, slots=True)
class Marks:
    """What one set of partitions left behind."""

    partition_by: str | None
    """What it was split by, as the options say it."""
    numbers: Sequence[int]
    """Up to where each of its partitions had settled its share."""
    goes_on: Sequence[bool]
    """Whether the marks of the set before count for a partition, too: not once it was rewound."""

    @property
    def end(self) -> int:
        """The highest number that any of them had settled."""
        return max(self.numbers)

    def to_json(self) -> list[Any]:
        """Return it as a JSON value."""
        return [self.partition_by, list(self.numbers), [int(each) for each in self.goes_on]]

    @classmethod
    def from_json(cls, value: Any) -> Marks:
        """Read what :meth:`to_json` returned."""
        partition_by, numbers, goes_on = value
        return cls(partition_by, numbers, [bool(each) for each in goes_on])


class Seam:
    """The marks of all sets before the present one that still matter, newest first."""

    def __init__(self, sets: Sequence[Marks], key_function: Callable[[str | None], KeyFunction | None]) -> None:
        self._sets = [(marks, key_function(marks.partition_by)) for marks in sets]
        self.end = max((marks.end for marks in sets), default=0)
        """Nothing above this number was settled by any of them."""

    def settled(self, event: RecordedEvent) -> bool:
        """Return whether one of the earlier sets had settled the event."""
        for marks, function in self._sets:
            try:
                key = key_of(event, function)
            except Exception:  # noqa: BLE001  # a user's function may raise anything; such events go by position
                key = None
            share = share_of(key, event.position, len(marks.numbers))
            if event.number <= marks.numbers[share]:
                return True
            if not marks.goes_on[share]:
                return False
        return False
