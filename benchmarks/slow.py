"""An app whose handler is slower than the writers: what its owner process holds meanwhile is measured.

Does nothing else, so that all of the process's memory is Headwater's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from benchmarks.handlers import Count
from headwater.storage.model import RecordedEvent
from headwater.subscriptions.app import App
from headwater.subscriptions.handler import Context

NAME: Final = "slow"
BATCH: Final = 10
PAUSE: Final = 0.02
"""How long a batch takes, in seconds: at most 500 events a second are handled."""


class Slow(Count):
    """Takes its time."""

    async def handle(self, events: Sequence[RecordedEvent], context: Context) -> None:
        """Pretend to work, then note the delivery."""
        await asyncio.sleep(PAUSE)
        self._write(len(events), context)


app = App("slow", database_url="postgresql://given.by.the.environment")
app.subscription(NAME, batch_size=BATCH)(Slow)
