"""Which partitions have lagged for long: only that may move them, since lag changes faster than anything moves.

Knows nothing of where they are; the time is always given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

HOT_LAG: Final = 1000
"""From so many events on a partition lags."""
HOT_FOR: Final = 30.0
"""For so long it has to lag until it is hot, and not to lag until it is not, in seconds."""


class Heat:
    """What was hot at the last look, and since when each partition is otherwise."""

    def __init__(self) -> None:
        self._hot: set[int] = set()
        self._otherwise: dict[int, float] = {}

    def look(self, lags: Mapping[int, int], now: float) -> frozenset[int]:
        """Return those that are hot, by lock ids, given the lag of each."""
        for lock_id, lag in lags.items():
            if (lag >= HOT_LAG) == (lock_id in self._hot):
                self._otherwise.pop(lock_id, None)
            elif now - self._otherwise.setdefault(lock_id, now) >= HOT_FOR:
                self._hot ^= {lock_id}
                del self._otherwise[lock_id]
        self._hot &= lags.keys()
        self._otherwise = {lock_id: at for lock_id, at in self._otherwise.items() if lock_id in lags}
        return frozenset(self._hot)
