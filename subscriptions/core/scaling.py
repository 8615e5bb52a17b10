"""How many consumers a partition should have, decided by how busy they are and whether events wait.

Never starts or stops one, and reads no clock: it is told what was seen, and when.
"""

from __future__ import annotations

from typing import Final

BUSY: Final = 0.8
"""Consumers that work for this share of the time, while events wait, want more hands."""
SPARE: Final = 0.5
"""One consumer is too many when the others would not work for more than this share of the time without it."""
GROW_AFTER: Final = 1.0
"""For so many seconds it must have been busy before more are added, and before more still."""


class Scaling:
    """The number of consumers of one partition, between the least and the most.

    1. Between BUSY and SPARE nothing changes, and what has changed waits for as long again before the next change. So
       the number does not flap under a load that stays: after one is taken away the others are far from busy.
    2. More come half as many again at a time, fewer one at a time.
    """

    def __init__(self, least: int, most: int, *, idle_after: float, now: float) -> None:
        self._least = least
        self._most = most
        self._idle_after = idle_after
        self._seen_at = now
        self._worked = 0.0
        self._busy_since: float | None = None
        self._spare_since: float | None = None

    def wanted(self, consumers: int, worked: float, waiting: bool, now: float) -> int:
        """Return how many there should be.

        ``worked`` is the sum of the seconds for which each of the ``consumers`` was at work since the beginning, and
        ``waiting`` says whether there are events that nobody has.
        """
        passed = now - self._seen_at
        if passed <= 0:
            return consumers
        at_work = (worked - self._worked) / passed
        self._seen_at, self._worked = now, worked
        busy = waiting and at_work >= BUSY * consumers
        spare = at_work <= SPARE * (consumers - 1)
        self._busy_since = (now if self._busy_since is None else self._busy_since) if busy else None
        self._spare_since = (now if self._spare_since is None else self._spare_since) if spare else None
        if self._busy_since is not None and now - self._busy_since >= GROW_AFTER and consumers < self._most:
            self._busy_since = now
            return min(self._most, consumers + (consumers + 1) // 2)
        if self._spare_since is not None and now - self._spare_since >= self._idle_after and consumers > self._least:
            self._spare_since = now
            return consumers - 1
        return consumers
