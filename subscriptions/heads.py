"""The news that the head moved, shared by all subscriptions of a process: one listener and one poller for all.

Never says where the head is: it says that looking is worth while.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeAlias

from headwater.storage.errors import StoreUnavailable
from headwater.subscriptions.ports import EventReader, Hints

Listener: TypeAlias = Callable[[int], None]


class Heads:
    """Tells its listeners each head that is announced: by hints at once, by polling at the latest after the interval.

    Run it for as long as there are subscriptions; without it they poll for themselves.
    """

    def __init__(self, reader: EventReader, hints: Hints | None = None, *, poll_interval: float = 1.0) -> None:
        self._reader = reader
        self._hints = hints
        self._poll_interval = poll_interval
        self._listeners: set[Listener] = set()
        self._polled = -1

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with each announced head, on the event loop; returns what ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def announce(self, head: int) -> None:
        """Pass on that the head may be here: also for appends of this very process."""
        for listener in tuple(self._listeners):
            listener(head)

    async def run(self) -> None:
        """Listen and poll until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll(), name="headwater-poll")
            if self._hints is not None:
                tasks.create_task(self._follow(self._hints), name="headwater-hints")

    async def _follow(self, hints: Hints) -> None:
        async for head in hints.listen():
            self.announce(head)

    async def _poll(self) -> None:
        while True:
            with contextlib.suppress(StoreUnavailable):
                head = await self._reader.head()
                if head != self._polled:
                    self._polled = head
                    self.announce(head)
            await asyncio.sleep(self._poll_interval)
