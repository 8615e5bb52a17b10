"""The replays of a range that run on a host, each beside the live delivery of its partition.

Decides nothing: operators ask for them and take them back; how far each came is in the database, so that the next owner
goes on with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from headwater.storage.errors import StaleEpoch, StoreUnavailable
from headwater.storage.leases import Grant
from headwater.storage.postgres.replaying import ReplayRange

log = logging.getLogger(__name__)


class OneReplay(Protocol):
    """A replay that was made ready under a grant."""

    async def run(self) -> str | None:
        """Return the outcome when it has ended for good; None when it is to be gone on with, here or elsewhere."""
        ...

    def drain(self) -> None:
        """Finish what is in flight, save, and let ``run`` return."""
        ...

    def stop(self) -> None:
        """Let ``run`` return at once."""
        ...


MakeReplay = Callable[[int, ReplayRange], OneReplay]
"""Makes a replay, given its command's id and its range."""
Finish = Callable[[Grant, int, str], Awaitable[None]]


class SlotReplays:
    """The replays of one partition under one grant.

    1. Each command has at most one replay here.
    2. When ``end`` has returned, none of them runs any more.
    3. One whose outcome is written down is not begun again, whatever an earlier look found open.
    """

    def __init__(self) -> None:
        self._running: dict[int, tuple[OneReplay, asyncio.Task[None]]] = {}
        self._cancelled: dict[int, str] = {}
        self._ended: set[int] = set()

    def look(self, command_id: int, found: ReplayRange, grant: Grant, make: MakeReplay, finish: Finish) -> None:
        """Begin a replay, unless it runs; end it when it was cancelled."""
        if command_id in self._ended:
            return
        running = self._running.get(command_id)
        if found.cancelled_by is not None:
            self._cancelled[command_id] = f"cancelled by {found.cancelled_by}"
            if running is not None:
                running[0].drain()
                return
        if running is None:
            replay = make(command_id, found)
            task = asyncio.create_task(self._run(command_id, replay, grant, finish), name="headwater-replay")
            self._running[command_id] = replay, task
            if command_id in self._cancelled:
                replay.drain()

    def drain(self) -> None:
        """Save and end what runs here; the next owner goes on with it."""
        for replay, _ in self._running.values():
            replay.drain()

    def stop(self) -> None:
        """End at once what runs here."""
        for replay, _ in self._running.values():
            replay.stop()

    async def end(self) -> None:
        """Drain, and wait until nothing runs here any more."""
        self.drain()
        if self._running:
            await asyncio.wait([task for _, task in self._running.values()])

    async def _run(self, command_id: int, replay: OneReplay, grant: Grant, finish: Finish) -> None:
        try:
            outcome = await replay.run()
            outcome = self._cancelled.get(command_id, outcome)
            if outcome is not None:
                await finish(grant, command_id, outcome)
                self._ended.add(command_id)
        except (StaleEpoch, StoreUnavailable) as error:
            log.info("replay %d stops here: %s", command_id, error)
        except Exception as error:
            log.exception("replay %d ended by a defect", command_id)
            with contextlib.suppress(StaleEpoch, StoreUnavailable):
                await finish(grant, command_id, f"ended by a defect: {error}")
                self._ended.add(command_id)
        finally:
            del self._running[command_id]
