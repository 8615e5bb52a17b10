"""A loop's pause that can be cut short: by whoever knows that there is something to do.

Decides nothing: what is looked at after the pause is the loop's own business.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Final

SPACING: Final = 0.02
"""How long after one step a ringing bell lets the next one begin, in seconds: what comes together is seen together."""


class Bell:
    """Ends the pause of one loop early. A ring during a step is not lost: the next pause is short."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._begun = float("-inf")

    def ring(self) -> None:
        """Let the next step begin soon. Call it on the event loop."""
        self._rung.set()

    async def pause(self, seconds: float) -> None:
        """Wait for a ring, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
                await asyncio.sleep(self._begun + SPACING - time.monotonic())
        self._rung.clear()
        self._begun = time.monotonic()
