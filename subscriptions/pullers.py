"""Who takes the batches of a pull subscription: a named or unnamed taker, its loop, and the seat that it has meanwhile.

Decides nothing about events: it hands over what the runner delivers, and says who has come and gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from headwater.subscriptions.ports import Delivered
from headwater.subscriptions.pulled import PulledBatch

if TYPE_CHECKING:
    from headwater.subscriptions.pull import PullSubscription

log = logging.getLogger(__name__)


class Seat:
    """One taker's place among the consumers, from its coming to its going.

    1. It has at most one delivery at a time.
    2. The time-out of a delivery counts from when its first events are taken.
    3. Who was too late is handed nothing until it asks again.
    """

    def __init__(self, subscription: PullSubscription, name: str, number: int, buffer: int | None) -> None:
        self.name = name
        self.number = number
        """Its number among the subscription's consumers."""
        self.absent = False
        """Whether its taker was too late, and has not asked for anything since."""
        self.abandoned = False
        """Whether its loop was left, and nobody was told yet."""
        self.taker: asyncio.Task[Any] | None = None
        """The task that took the last batch."""
        self._subscription = subscription
        self._buffer = buffer
        self._batches: asyncio.Queue[PulledBatch | None] = asyncio.Queue()
        self._current: PulledBatch | None = None
        self._pieces: deque[PulledBatch] = deque()
        """What is left of a delivery that has more events than the buffer."""
        self._piece: PulledBatch | None = None
        self._taken: set[int] = set()
        """The numbers of what was handed out of the current delivery."""
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        self._error: Exception | None = None

    async def handle(self, delivery: Delivered) -> None:
        """Hand a delivery over and wait for its acknowledgement; called by the runner."""
        batch = self._subscription.batch(await self._subscription.opened(delivery))
        self._current = batch
        if self._subscription.has(self):
            self._batches.put_nowait(batch)
        else:  # its taker has left while the events were opened
            batch.void()
        try:
            await batch.outcome()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._current = None
            self._taken.clear()

    async def close(self) -> None:
        """Nothing to do: leaving is the taker's own decision."""

    @property
    def taken(self) -> frozenset[int]:
        """The numbers of those events of the current delivery that the caller's code has got."""
        return frozenset(self._taken)

    @property
    def holds(self) -> bool:
        """Whether the caller's code has something that it has not acknowledged."""
        return bool(self._taken) and self._current is not None and not self._current.over

    def give_back(self) -> None:
        """Let go of what was handed over: acknowledging it from now on is refused."""
        if self._current is not None:
            self._current.void()

    def end(self, error: Exception | None = None) -> None:
        """Let the taking end, after what is there already; with an error, by that."""
        if not self._ended:
            self._ended, self._error = True, error
            self._batches.put_nowait(None)

    async def next(self) -> PulledBatch | None:
        """Wait for the next batch; None when there is none any more. Raises what ended it. Cancelling it is safe."""
        if self.absent:
            self.absent = False
            self._subscription.came_back(self)
        batch = await self._next_open()
        if batch is None:
            if self._error is not None:
                raise self._error
            self._subscription.raise_failure()
            return None
        if not self._taken and (limit := self._subscription.time_limit) is not None:
            self._timer = asyncio.get_running_loop().call_later(limit, self._too_late)
        self._taken.update(event.number for event in batch.events)
        self._taken_by(asyncio.current_task())
        return batch

    async def _next_open(self) -> PulledBatch | None:
        while True:
            if self._piece is not None:
                await self._piece.until_over()
            while self._pieces:
                self._piece = self._pieces.popleft()
                if not self._piece.over:
                    return self._piece
            self._piece = None
            batch = await self._batches.get()
            if batch is None:
                self._batches.put_nowait(None)  # for whoever asks again, too
                return None
            if batch.over:
                continue
            if self._buffer is None or len(batch.events) <= self._buffer:
                return batch
            self._pieces.extend(batch.pieces(self._buffer))

    def _too_late(self) -> None:
        if self._current is not None and not self._current.over:
            self.absent = True
            self._subscription.went_absent(self)
            self._current.expire()

    def _taken_by(self, task: asyncio.Task[Any] | None) -> None:
        if task is not None and task is not self.taker:
            self.taker = task
            task.add_done_callback(self._taker_ended)

    def _taker_ended(self, task: asyncio.Task[Any]) -> None:
        # One that returns may have passed its batch on. It may be another task's turn since.
        if task is not self.taker or not self._subscription.has(self):
            return
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            log.warning(
                "%r has left %r with what it had: its task has ended", self.name, self._subscription, exc_info=error
            )
            self._subscription.free(self)

    def __repr__(self) -> str:
        return f"<Seat {self.number} of {self._subscription!r} name={self.name!r}>"


class PullSubscriber:
    """One taker of batches, by a loop or one by one. It gets the next batch once the last one is acknowledged.

    It has its seat until it leaves: by ``leave``, at the end of an ``async with``, with its loop however that ends, and
    when the task that took the last batch ends by an exception or a cancellation. A loop that begins after that has
    a seat again.
    """

    def __init__(self, subscription: PullSubscription, name: str, buffer: int | None) -> None:
        self.name = name
        self._subscription = subscription
        self._buffer = buffer
        self._seat: Seat | None = None
        self._has_left = False
        self._loops = 0
        """How many loops were begun; the last one counts."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()

    async def subscribed(self) -> None:
        """Wait until this process has the lease: only then are there batches."""
        await self._subscription.subscribed()

    async def take(self) -> PulledBatch | None:
        """Wait for the next batch, outside of a loop; None once this one has left, or the subscription is closed.

        What was taken so stays in hand until it is acknowledged, or the subscriber leaves. Cancelling it loses nothing.
        Raises SubscriptionConflict when it was left before and its name or all seats are taken; otherwise as a loop.
        """
        if self._has_left:
            return None
        seat = self.sit()
        try:
            batch = await seat.next()
        except Exception:
            self._subscription.free(seat)
            raise
        if batch is None:
            self._subscription.free(seat)
            self._has_left = True
        return batch

    async def leave(self) -> None:
        """Take no more batches; what was not acknowledged goes to the other subscribers. Safe to repeat.

        At-most-once only what was not taken: of the rest an attempt has failed.
        """
        self._has_left = True
        if self._seat is not None:
            self._subscription.free(self._seat)

    def sit(self) -> Seat:
        """Return its seat; takes one, unless it has. Raises SubscriptionConflict."""
        self._subscription.sweep()
        if self._seat is None or not self._subscription.has(self._seat):
            self._seat = self._subscription.seat(self.name, self._buffer)
        return self._seat

    def begin(self) -> int:
        """Begin a loop, which gives back what an earlier one has left open; returns the loop's number."""
        if not self._has_left and self._seat is not None and self._seat.holds:
            self._subscription.free(self._seat)
        self._loops += 1
        return self._loops

    def dropped(self, loop: int) -> None:
        """Note that a loop was left. The garbage collector may call this anywhere: so it only leaves a note."""
        if loop == self._loops and self._seat is not None:
            self._seat.abandoned = True
            self._subscription.sweep_soon()

    def __aiter__(self) -> AsyncIterator[PulledBatch]:
        return Loop(self)

    def __repr__(self) -> str:
        return f"<PullSubscriber {self.name!r} of {self._subscription!r}>"


class Loop:
    """The iterator of one loop: when it is dropped the loop was left, however that came about."""

    def __init__(self, subscriber: PullSubscriber) -> None:
        self._subscriber = subscriber
        self._number: int | None = None
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PulledBatch:
        if self._over:
            raise StopAsyncIteration
        if self._number is None:
            self._number = self._subscriber.begin()
        try:
            batch = await self._subscriber.take()
        except Exception:
            self._over = True
            raise
        if batch is None:
            self._over = True
            raise StopAsyncIteration
        return batch

    async def aclose(self) -> None:
        """Leave the loop. Safe to repeat."""
        self.leave()

    def leave(self) -> None:
        """Leave the loop, from any thread. Safe to repeat."""
        over, self._over = self._over, True
        if self._number is not None and not over:
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                self._subscriber.dropped(self._number)

    def __del__(self) -> None:
        self.leave()
