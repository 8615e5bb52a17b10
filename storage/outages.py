"""How long to wait before a server that does not answer is tried again, and how often that is told: once.

Pure but for its defaults: it waits for nothing itself.
"""

from __future__ import annotations

import logging
import random as random_module
import time
from collections.abc import Callable, Iterator
from typing import Final

FIRST: Final = 0.05
"""The shortest pause, in seconds: a server that restarts refuses at once, and costs next to nothing meanwhile."""
MOST: Final = 1.0
"""The longest pause, in seconds: what a long outage adds to itself at the most."""
SHARE: Final = 0.1
"""Each pause is this part of the time that the outage has lasted: nobody makes it longer by more than that."""


def pauses(
    now: Callable[[], float] = time.monotonic, random: Callable[[], float] = random_module.random
) -> Iterator[float]:
    """Yield for ever, for an outage that begins now, how many seconds to wait before the next try.

    By a half shorter at random, so that many processes do not come together to a server that is only starting.
    """
    begun = now()
    while True:
        yield min(MOST, max(FIRST, SHARE * (now() - begun))) * (1.0 - random() / 2)


class Outage:
    """Tells a log that somebody waits, once for each outage, and once that it is over.

    Several loops may share one: it is over when none of them waits any more.
    """

    def __init__(
        self, log: logging.Logger, waits: str, again: str, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        """``waits`` and ``again`` are what is told, each without a full stop."""
        self._log = log
        self._waits = waits
        self._again = again
        self._now = now
        self._waiting: set[str] = set()
        self._begun = 0.0

    def goes_on(self, error: BaseException, who: str = "") -> None:
        """Note that ``who`` tries in vain."""
        if not self._waiting:
            self._begun = self._now()
            # What the driver says has several lines.
            self._log.warning("%s: %s", self._waits, " ".join(str(error).split()) or type(error).__name__)
        self._waiting.add(who)

    def ends(self, who: str = "") -> None:
        """Note that ``who`` was answered."""
        if who in self._waiting:
            self._waiting.remove(who)
            if not self._waiting:
                self._log.warning("%s, after %.1f s", self._again, self._now() - self._begun)

    def __repr__(self) -> str:
        return f"<Outage {self._waits!r} waiting={sorted(self._waiting)}>"
