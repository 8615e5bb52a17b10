"""A thread of one's own for sync handlers, which can be left behind when it hangs.

Never waits for what hangs: neither when it is abandoned nor when the process ends.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[Answer]):
    """How a function ended, as a value: a future refuses some exceptions, and takes one for its own cancellation."""

    answer: Answer | None = None
    raised: BaseException | None = None


class Worker:
    """Runs functions one after another in one thread, and tells the loop how each ended."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] | None = None

    async def run(self, function: Callable[[], Answer]) -> Answer:
        """Run it and wait; returns what it returned, and raises what it raised.

        Cancelled meanwhile, the thread is left behind to end by itself, and the next call gets a new one; what had to
        wait for its turn until then is not begun.
        """
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[_Outcome[Answer]] = loop.create_future()

        def unless_given_up(ended: _Outcome[Answer]) -> None:
            if not outcome.done():
                outcome.set_result(ended)

        def work() -> None:
            if outcome.cancelled():
                return
            try:
                ended = _Outcome(function())
            except BaseException as raised:  # noqa: BLE001  # it is raised again where it was asked for
                ended = _Outcome(raised=raised)
            try:
                loop.call_soon_threadsafe(unless_given_up, ended)
            except RuntimeError:
                if not loop.is_closed():
                    raise
                # The call was left behind and outlived the loop: nobody is left to be told.

        self._queue().put(work)
        try:
            ended = await outcome
        except asyncio.CancelledError:
            self.abandon()
            raise
        if ended.raised is not None:
            raise ended.raised
        return ended.answer  # type: ignore[return-value]  # None only where that was the answer

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
