"""Tells the hint's publisher that the head moved: at most one message under way, the newest head wins.

Never delays an append and never fails one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from headwater.storage.model import Gate

log = logging.getLogger(__name__)

Announce: TypeAlias = Callable[[int, Gate | None], Awaitable[None]]
"""Tells a new head, and where the next append can be waited for."""


class Announcer:
    """Coalesces the heads that appends reach into as few messages as the publisher can take."""

    def __init__(self, announce: Announce) -> None:
        self._announce = announce
        self._head = 0
        self._gate: Gate | None = None
        self._announced = 0
        self._task: asyncio.Task[None] | None = None

    def head_moved(self, head: int, gate: Gate | None = None) -> None:
        """Note a new head, and the gate of its session; it is announced soon, unless a newer one comes first."""
        if head > self._head:
            self._head, self._gate = head, gate
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._publish(), name="headwater-announce")

    async def close(self) -> None:
        """Let the message under way end."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _publish(self) -> None:
        while self._announced < self._head:
            self._announced = self._head
            try:
                await self._announce(self._announced, self._gate)
            except Exception:
                log.warning("a hint could not be sent; readers find what is new by polling", exc_info=True)
