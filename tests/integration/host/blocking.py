"""A handler that keeps its event loop, beside one that does not, run by the processes of these tests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from datetime import timedelta
from pathlib import Path

from headwater import App, Context, Delivery, Filter, RecordedEvent

app = App("blocking")

INSERT = 'INSERT INTO "handled" ("subscription", "position") SELECT %s, unnest(%s::bigint[])'


@app.subscription("blocker", where=Filter(categories=("stone",)))
async def handle(event: RecordedEvent) -> None:
    """It should not call what takes long."""
    keeps_the_loop(Path(os.environ["BLOCKER_GATE"]))


def keeps_the_loop(gate: Path) -> None:
    """Pretended work: whoever is the first is at it until there is a file."""
    try:
        gate.with_suffix(".reached").touch(exist_ok=False)
    except FileExistsError:
        return
    while not gate.exists():
        time.sleep(0.01)


def reached() -> None:
    """Say that a handler is at work."""
    Path(os.environ["BLOCKER_GATE"]).touch()


stubborn_app = App("stubborn")


@stubborn_app.subscription("stubborn", drain_timeout=timedelta(seconds=0.2))
async def stubborn(event: RecordedEvent) -> None:
    """It pays no heed to being cancelled."""
    reached()
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


@app.subscription("exact", delivery=Delivery.EXACTLY_ONCE, batch_size=50)
async def exact(events: list[RecordedEvent], context: Context) -> None:
    await context.transaction.execute(INSERT, ["exact", [event.position for event in events]])
