"""Whether nothing gets through any more: what was taken out since the last event that was handled.

Judges by what one owner has seen under its grant; pauses nothing itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

MOST_KNOWN: Final = 256
"""So many keys that get on are remembered, the last ones to come."""

KEYS: Final = 4
"""Events behind count of at least so many keys that failed one after the other, when others are known to get on."""


class Breaker:
    """Counts events in a row of which none was handled.

    1. An event whose attempts are used up always counts.
    2. One that is parked behind it counts only when nothing that was read is left to try: else that will tell.
    3. While another key is known to get on, one key's events behind it count for a part of the limit only, and when it
       failed in this row: a poisoned key, however busy, never holds up others that are idle.
    4. While none is, they all count, of every key that failed under this grant.
    """

    def __init__(self, limit: int, *, sole_key: str | None) -> None:
        """A ``sole_key`` is that of all events of a single stream: once it is parked, none of them gets through."""
        self._limit = limit
        self._share = -(-limit // KEYS) - 1
        self._sole_key = sole_key
        self._given_up = 0
        self._behind: Counter[str] = Counter()
        self._failed: set[str] = set()
        """The keys that failed under this grant."""
        self._in_row: set[str] = set()
        """Those of them that did since the last event that was handled."""
        self._gets_on: dict[str | None, None] = {}
        """Keys of which something was handled under this grant, and of which nothing was parked since."""

    def handled(self, keys: Iterable[str | None]) -> None:
        """Note that events of these keys were handled."""
        self.reset()
        for key in keys:
            self._gets_on[key] = None
        while len(self._gets_on) > MOST_KNOWN:
            del self._gets_on[next(iter(self._gets_on))]

    def gave_up(self, events: int) -> None:
        """Note that the attempts of so many events are used up."""
        self._given_up += events

    def blocked(self, key: str | None) -> None:
        """Note that an event of this key was parked, and that later ones go behind it."""
        self._gets_on.pop(key, None)
        if key is not None:
            self._failed.add(key)
            self._in_row.add(key)

    def fell_behind(self, events: Mapping[str, int]) -> None:
        """Note how many events of each key were parked behind an earlier one."""
        self._behind.update(events)

    def reset(self) -> None:
        """Begin to count anew."""
        self._given_up = 0
        self._behind.clear()
        self._in_row.clear()

    @property
    def failing(self) -> bool:
        """Whether attempts were used up since the last event that was handled."""
        return self._given_up > 0

    def count(self, *, untried: bool) -> int:
        """Return how many events in a row count; ``untried`` says whether something that was read is left to try."""
        if untried:
            return self._given_up
        if self._gets_on:
            behind = sum(min(self._behind[key], self._share) for key in self._in_row)
        else:
            behind = sum(n for key, n in self._behind.items() if key == self._sole_key or key in self._failed)
        return self._given_up + behind

    def __repr__(self) -> str:
        return f"<Breaker {self._given_up} of {self._limit}, {self._behind.total()} behind>"
