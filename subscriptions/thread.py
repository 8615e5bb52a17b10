"""A thread of one's own for sync handlers, which can be left behind when it hangs.

Never waits for what hangs: neither when it is abandoned nor when the process ends.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable


class Worker:
    """Runs functions one after another in one thread, and tells the loop how each ended."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] | None = None

    async def run(self, function: Callable[[], None]) -> None:
        """Run it and wait; raises what it raised.

        Cancelled meanwhile, the thread is left behind to end by itself, and the next call gets a new one; what had to
        wait for its turn until then is not begun.
        """
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[None] = loop.create_future()

        def settle(error: BaseException | None) -> None:
            if outcome.done():
                return
            if error is None:
                outcome.set_result(None)
            else:
                outcome.set_exception(error)

        def work() -> None:
            if outcome.cancelled():
                return
            error: BaseException | None = None
            try:
                function()
            except BaseException as raised:  # noqa: BLE001  it is raised again where it was asked for
                error = raised
            loop.call_soon_threadsafe(settle, error)

        self._queue().put(work)
        try:
            await outcome
        except asyncio.CancelledError:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Let the thread end after what it is doing; safe to repeat."""
        if self._work is not None:
            self._work.put(None)
            self._work = None

    def _queue(self) -> queue.SimpleQueue[Callable[[], None] | None]:
        if self._work is None:
            self._work = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(self._work,), name=self._name, daemon=True).start()
        return self._work


def _serve(work: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (function := work.get()) is not None:
        function()
