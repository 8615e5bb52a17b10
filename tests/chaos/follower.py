"""Follows the notes while everything runs: feeds the checker, and says when a partition handled something again."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.chaos.checker import Checker
from tests.chaos.journal import Journal, Note

INTERVAL: Final = 0.02
"""How often the files are read, in seconds. What is measured are the times in the notes."""
HELD_BACK: Final = 0.3
"""For how long a note waits for earlier ones of other processes before it is checked, in seconds."""
REMEMBERED: Final = 120.0
"""For how long notes can still be asked for, in seconds."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What counts as going on: a delivery under a later epoch than this, and of an event behind this position.

    With ``consumer``, only one by that consumer in another process than ``not_by``.
    """

    epoch_above: int = -1
    position_above: int = 0
    consumer: int | None = None
    not_by: int = 0

    def met_by(self, note: Note) -> bool:
        """Whether this delivery is one."""
        who = self.consumer is None or (note.consumer == self.consumer and note.process != self.not_by)
        return who and note.epoch > self.epoch_above and note.positions[-1] > self.position_above


class NotGoingOn(Exception):
    """A partition handled nothing for too long."""


class Follower:
    """Reads the journal and remembers the latest notes."""

    def __init__(self, journal: Journal, checker: Checker) -> None:
        self.checker = checker
        self._journal = journal
        self._recent: deque[Note] = deque()
        self._waiting: list[tuple[float, int, Note]] = []
        self._numbers = itertools.count()
        self._news = asyncio.Condition()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL)

    async def look(self, *, everything: bool = False) -> None:
        """Read what is new; ``everything`` also checks what would be held back."""
        now = time.monotonic()
        notes = self._journal.news()
        for note in notes:
            self._recent.append(note)
            heapq.heappush(self._waiting, (note.time, next(self._numbers), note))
        while self._recent and self._recent[0].time < now - REMEMBERED:
            self._recent.popleft()
        while self._waiting and (everything or self._waiting[0][0] < now - HELD_BACK):
            self.checker.feed(heapq.heappop(self._waiting)[2])
        if notes:
            async with self._news:
                self._news.notify_all()

    def since(self, when: float) -> list[Note]:
        """Return the notes that are remembered from this time on."""
        return [note for note in self._recent if note.time >= when]

    async def went_on(
        self, wanted: Mapping[tuple[str, int], Wanted], since: float, deadline: float
    ) -> dict[tuple[str, int], float]:
        """Wait until each partition goes on; returns after how many seconds each did. Raises NotGoingOn."""
        while True:
            found: dict[tuple[str, int], float] = {}
            for note in self._recent:
                if note.time >= since and note.owned in wanted and wanted[note.owned].met_by(note):
                    after = note.time - since
                    found[note.owned] = min(after, found.get(note.owned, after))
            if len(found) == len(wanted):
                return found
            left = deadline - (time.monotonic() - since)
            if left <= 0:
                missing = {owned: wanted[owned] for owned in wanted if owned not in found}
                raise NotGoingOn(f"nothing for {deadline:g} s: {missing}")
            async with self._news:
                try:
                    await asyncio.wait_for(self._news.wait(), min(left, 1.0))
                except TimeoutError:
                    continue
