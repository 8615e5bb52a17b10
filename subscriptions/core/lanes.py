"""In which order read events may be handed out: one after the other, or in parallel by partition key.

Works on places of the window; knows nothing of consumers, attempts or time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Protocol, TypeAlias

Places: TypeAlias = Sequence[int]
Key: TypeAlias = str | None


class Order(Protocol):
    """What the machine takes its next delivery from."""

    def add(self, places: Places, keys: Sequence[Key] | None) -> None:
        """Put places at the end, with the key of each; no keys when the order does not look at them."""
        ...

    def take(self, limit: int) -> tuple[Places, tuple[str, ...]]:
        """Take up to ``limit`` places that may be handed out together now, and the keys that they keep busy."""
        ...

    def release(self, keys: Iterable[str]) -> None:
        """Nothing of these keys is in flight any more."""
        ...

    def withdraw(self, key: str, key_of: Callable[[int], Key]) -> list[int]:
        """Take out everything of a key that was not handed out."""
        ...


class InOrder:
    """One order for everything: places leave as they came."""

    def __init__(self) -> None:
        self._runs: deque[Places] = deque()

    def add(self, places: Places, keys: Sequence[Key] | None) -> None:  # noqa: ARG002  # all keys share this order
        if places:
            self._runs.append(places)

    def take(self, limit: int) -> tuple[Places, tuple[str, ...]]:
        taken: list[Places] = []
        while self._runs and limit:
            run = self._runs.popleft()
            if len(run) > limit:
                self._runs.appendleft(run[limit:])
                run = run[:limit]
            taken.append(run)
            limit -= len(run)
        if len(taken) == 1:
            return taken[0], ()
        # What was kept behind a parked event, and may go on, comes after what was read later.
        return sorted(chain.from_iterable(taken)), ()

    def put_back(self, places: Places) -> None:
        """Put what was just taken back to the front."""
        self._runs.appendleft(places)

    def release(self, keys: Iterable[str]) -> None:
        """Nothing to do: keys are never busy here."""

    def withdraw(self, key: str, key_of: Callable[[int], Key]) -> list[int]:
        withdrawn: list[int] = []
        runs: deque[Places] = deque()
        for run in self._runs:
            kept: list[int] = []
            for place in run:
                (withdrawn if key_of(place) == key else kept).append(place)
            if kept:
                runs.append(run if len(kept) == len(run) else kept)
        self._runs = runs
        return withdrawn

    def __bool__(self) -> bool:
        return bool(self._runs)


class Lanes:
    """One order for each key.

    1. A key that is busy is not handed out: it is never with two consumers at once.
    2. The places of a key leave in the order in which they came; so do all places of one delivery.
    3. Places without a key have no order and are never busy.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[int]] = {}
        self._free: deque[str] = deque()
        self._busy: set[str] = set()
        self._loose: deque[int] = deque()

    def add(self, places: Places, keys: Sequence[Key] | None) -> None:
        assert keys is not None
        waiting, busy, free = self._waiting, self._busy, self._free
        for place, key in zip(places, keys, strict=True):
            if key is None:
                self._loose.append(place)
                continue
            lane = waiting.get(key)
            if lane is None:
                waiting[key] = deque((place,))
                if key not in busy:
                    free.append(key)
            else:
                lane.append(place)

    def take(self, limit: int) -> tuple[Places, tuple[str, ...]]:
        taken: list[int] = []
        keys: list[str] = []
        while self._free and len(taken) < limit:
            key = self._free.popleft()
            lane = self._waiting.get(key)
            if not lane or key in self._busy:
                continue
            self._busy.add(key)
            keys.append(key)
            room = limit - len(taken)
            if len(lane) <= room:
                taken.extend(lane)
                del self._waiting[key]
            else:
                taken.extend(lane.popleft() for _ in range(room))
        while self._loose and len(taken) < limit:
            taken.append(self._loose.popleft())
        taken.sort()
        return taken, tuple(keys)

    def release(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._busy.discard(key)
            if key in self._waiting:
                self._free.append(key)

    def withdraw(self, key: str, key_of: Callable[[int], Key]) -> list[int]:  # noqa: ARG002  # the lane knows them
        # The key may stay in the row of free ones: a key that has no lane, or is busy, is passed over at its turn.
        return list(self._waiting.pop(key, ()))

    def __bool__(self) -> bool:
        return bool(self._free or self._loose)
