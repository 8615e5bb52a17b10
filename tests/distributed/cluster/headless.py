"""One subscription in its host's process and one with handler actors, for tests of a cluster without its head."""

from __future__ import annotations

import asyncio

from headwater import App, RecordedEvent

app = App("headless")


@app.subscription("here")
async def here(event: RecordedEvent) -> None: ...


@app.subscription("apart", consumers=(1, 2))
async def apart(event: RecordedEvent) -> None:
    """Be slow enough for another actor to be wanted."""
    await asyncio.sleep(0.05)
