"""Tells the hint's publisher that the head moved: at most one message under way, the newest head wins.

Never delays an append and never fails one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)


class Announcer:
    """Coalesces the heads that appends reach into as few messages as the publisher can take."""

    def __init__(self, announce: Callable[[int], Awaitable[None]]) -> None:
        self._announce = announce
        self._head = 0
        self._task: asyncio.Task[None] | None = None

    def head_moved(self, head: int) -> None:
        """Note a new head; it is announced soon, unless a newer one comes first."""
        if head > self._head:
            self._head = head
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._publish(), name="headwater-announce")

    async def close(self) -> None:
        """Let the message under way end."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _publish(self) -> None:
        announced = 0
        while announced < self._head:
            announced = self._head
            try:
                await self._announce(announced)
            except Exception:
                log.warning("announcing head %d failed; readers find it by polling", announced, exc_info=True)
