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

    def __init__(
        self,
        announce: Callable[[int], Awaitable[None]],
        announce_begun: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self._announce = announce
        self._announce_begun = announce_begun
        self._begun: int | None = None
        self._head = 0
        self._announced = 0
        self._task: asyncio.Task[None] | None = None

    def append_begins(self, session: int) -> None:
        """Note that a session of the server begins an append; announced at once or not at all."""
        if self._announce_begun is not None and (self._task is None or self._task.done()):
            self._begun = session
            self._start()

    def head_moved(self, head: int) -> None:
        """Note a new head; it is announced soon, unless a newer one comes first."""
        if head > self._head:
            self._head = head
            self._start()

    async def close(self) -> None:
        """Let the message under way end."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._publish(), name="headwater-announce")

    async def _publish(self) -> None:
        begun, self._begun = self._begun, None
        if begun is not None and self._announce_begun is not None:
            await self._publish_one(self._announce_begun, begun)
        while self._announced < self._head:
            self._announced = self._head
            await self._publish_one(self._announce, self._announced)

    async def _publish_one(self, announce: Callable[[int], Awaitable[None]], number: int) -> None:
        try:
            await announce(number)
        except Exception:
            log.warning("a hint could not be sent; readers find what is new by polling", exc_info=True)
