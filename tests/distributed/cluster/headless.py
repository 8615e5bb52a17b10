"""One subscription in its host's process and one with handler actors, for tests of a cluster without its head."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from headwater import App, RecordedEvent, RetryPolicy

app = App("headless")


@app.subscription("here")
async def here(event: RecordedEvent) -> None: ...


@app.subscription("apart", consumers=(1, 2))
async def apart(event: RecordedEvent) -> None:
    """Be slow enough for another actor to be wanted."""
    await asyncio.sleep(0.05)


@app.subscription("timed", consumers=1, handler_timeout=timedelta(seconds=2), retry=RetryPolicy(attempts=2))
async def timed(event: RecordedEvent) -> None: ...
