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
    2. Who is to retire while it has one leaves when it has answered.
    """

    def __init__(self, consumers: Iterable[int], now: float) -> None:
        self._free = deque(consumers)
        self._resting: list[tuple[float, int]] = []
        self._busy: set[int] = set()
        self._retiring: set[int] = set()
        self._worked = 0.0
        self._counted_to = now

    def take(self, now: float) -> int:
        """Take the consumer that has been free for longest."""
        self.worked(now)
        consumer = self._free.popleft()
        self._busy.add(consumer)
        return consumer

    def give_back(self, consumer: int, now: float, *, lost: bool) -> None:
        """Note that a consumer has answered; one that was lost rests for a while."""
        self.worked(now)
        self._busy.discard(consumer)
        if consumer in self._retiring:
            self._retiring.discard(consumer)
        elif lost:
            self._resting.append((now + REST, consumer))
        else:
            self._free.append(consumer)

    def join(self, consumer: int) -> None:
        """Add a consumer, or keep one that was to retire; one that is here already stays as it is."""
        self._retiring.discard(consumer)
        if not self.holds(consumer):
            self._free.append(consumer)

    def retire(self, consumer: int) -> None:
        """Give a consumer nothing more; it leaves now, or when it has answered."""
        if consumer in self._busy:
            self._retiring.add(consumer)
        else:
            self._forget(consumer)

    def leave(self, consumer: int, now: float) -> None:
        """Forget a consumer at once, whatever it has."""
        self.worked(now)
        self._busy.discard(consumer)
        self._retiring.discard(consumer)
        self._forget(consumer)

    def _forget(self, consumer: int) -> None:
        self._free = deque(each for each in self._free if each != consumer)
        self._resting = [each for each in self._resting if each[1] != consumer]

    def wake(self, now: float) -> float | None:
        """Let those who have rested be free; returns when the next one will have."""
        for rested in [each for each in self._resting if each[0] <= now]:
            self._resting.remove(rested)
            self._free.append(rested[1])
        return min((at for at, _ in self._resting), default=None)

    def holds(self, consumer: int) -> bool:
        """Whether a consumer is here: free, at work, or at rest."""
        return consumer in self._busy or consumer in self._free or any(each == consumer for _, each in self._resting)

    def worked(self, now: float) -> float:
        """Return for how many seconds, of all consumers together, deliveries were under way."""
        self._worked += len(self._busy) * (now - self._counted_to)
        self._counted_to = now
        return self._worked

    def __bool__(self) -> bool:
        """Whether anybody is free."""
        return bool(self._free)
