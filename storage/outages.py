"""How long to wait before a server that does not answer is tried again.

Pure but for its defaults: it waits for nothing itself.
"""

from __future__ import annotations

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
