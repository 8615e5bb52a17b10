"""The consumers of a partition: which of them have room for a delivery.

Knows them by number only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

REST: Final = 1.0
"""For so many seconds a consumer that was lost gets nothing, so that it does not burn the attempts of many events."""


class Seats:
    """Who is free, in the order in which they became so.

    1. A consumer has at most one delivery at a time.
    """

    def __init__(self, consumers: Iterable[int]) -> None:
        self._free = deque(consumers)
        self._resting: list[tuple[float, int]] = []

    def take(self) -> int:
        """Take the consumer that has been free for longest."""
        return self._free.popleft()

    def give_back(self, consumer: int, now: float, *, lost: bool) -> None:
        """Note that a consumer has answered; one that was lost rests for a while."""
        if lost:
            self._resting.append((now + REST, consumer))
        else:
            self._free.append(consumer)

    def join(self, consumer: int) -> None:
        """Add a consumer."""
        self._free.append(consumer)

    def leave(self, consumer: int) -> None:
        """Forget a consumer."""
        self._free = deque(each for each in self._free if each != consumer)
        self._resting = [each for each in self._resting if each[1] != consumer]

    def wake(self, now: float) -> float | None:
        """Let those who have rested be free; returns when the next one will have."""
        for rested in [each for each in self._resting if each[0] <= now]:
            self._resting.remove(rested)
            self._free.append(rested[1])
        return min((at for at, _ in self._resting), default=None)

    def __bool__(self) -> bool:
        """Whether anybody is free."""
        return bool(self._free)
