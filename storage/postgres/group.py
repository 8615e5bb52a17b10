"""Group commit: concurrent appends of a process share calls, each keeping its own outcome.

A lone caller sends its append itself, at once; only while a call is under way do appends queue, and then one call takes
many. A second call is begun beside it when much is queued, so that the server prepares the one while it commits the
other; for little it would only mean more commits. Never looks into an append.

Invariants:
1. A unit is in the queue, or in exactly one call, or settled.
2. At most ``lanes`` calls are under way.
3. A unit is sent again only after a broken connection, and then with the same ids, so that it is written once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from headwater.storage.errors import HeadwaterError, StoreClosed
from headwater.storage.model import AppendResult
from headwater.storage.postgres.appending import Outcome
from headwater.storage.postgres.encoding import Unit
from headwater.storage.postgres.resending import until_known

LANES: Final = 2
MAX_UNITS: Final = 64
MAX_EVENTS: Final = 2_500
MAX_PAYLOADS: Final = 16 * 1024 * 1024
"""So many bytes of payloads go together at most: what the server cannot take as one message would fail for all."""
SECOND_LANE: Final = 32
"""So many events must be queued for a second call to be worth its commit."""

Send = Callable[[Sequence[Unit]], Awaitable[list[Outcome]]]


class GroupCommit:
    """The queue before the store's order."""

    def __init__(self, send: Send, *, lanes: int = LANES) -> None:
        self._send = send
        self._lanes = lanes
        self._under_way = 0
        self._sending = 0
        self._idle = asyncio.Event()
        self._queued_events = 0
        self._queue: deque[tuple[Unit, asyncio.Future[Outcome]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<GroupCommit {self._under_way} calls under way, {len(self._queue)} queued>"

    async def append(self, unit: Unit) -> list[AppendResult]:
        """Append one unit; returns its results or raises its refusal."""
        if self._closed:
            raise StoreClosed
        if not self._under_way:
            self._enter_lane()
            try:
                [outcome] = await until_known(lambda: self._send([unit]))
            finally:
                self._leave_lane()
        else:
            future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            self._queue.append((unit, future))
            self._queued_events += unit.events
            if self._under_way < self._lanes and self._queued_events >= SECOND_LANE:
                self._enter_lane()
                self._start_draining()
            outcome = await future
        if isinstance(outcome, list):
            return outcome
        raise outcome

    async def close(self) -> None:
        """Refuse what is queued and wait for the calls under way."""
        self._closed = True
        while self._queue:
            _, future = self._pop()
            if not future.done():
                future.set_exception(StoreClosed())
        if self._under_way:
            await self._idle.wait()

    def _enter_lane(self) -> None:
        self._under_way += 1
        self._idle.clear()

    def _leave_lane(self) -> None:
        """Hand the lane to a task when others have queued meanwhile, else give it up."""
        if self._queue:
            self._start_draining()
        else:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def _start_draining(self) -> None:
        task = asyncio.create_task(self._drain(), name="headwater-group-commit")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self) -> None:
        try:
            while batch := self._take():
                try:
                    outcomes = await self._send_batch(batch)
                except BaseException as error:
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(_for_caller(error))
                    if isinstance(error, asyncio.CancelledError):
                        raise
                else:
                    for (_, future), outcome in zip(batch, outcomes, strict=True):
                        if not future.done():
                            future.set_result(outcome)
                # Those just answered often append again at once: let them queue, so that they share the next call.
                await asyncio.sleep(0)
        finally:
            self._leave_lane()

    async def _send_batch(self, batch: Sequence[tuple[Unit, asyncio.Future[Outcome]]]) -> list[Outcome]:
        units = [unit for unit, _ in batch]
        self._sending += 1
        try:
            return await until_known(lambda: self._send(units))
        finally:
            self._sending -= 1

    def _pop(self) -> tuple[Unit, asyncio.Future[Outcome]]:
        unit, future = self._queue.popleft()
        self._queued_events -= unit.events
        return unit, future

    def _take(self) -> list[tuple[Unit, asyncio.Future[Outcome]]]:
        """Take a share of the queue: all of it, or half when the other lane is about to take as well."""
        batch: list[tuple[Unit, asyncio.Future[Outcome]]] = []
        events = payloads = 0
        share = min(MAX_UNITS, -(-len(self._queue) // max(1, self._under_way - self._sending)))
        while self._queue and len(batch) < share:
            unit, future = self._queue[0]
            if future.done():  # its caller was cancelled
                self._pop()
                continue
            events += unit.events
            payloads += unit.payload_bytes
            too_much = events > MAX_EVENTS or payloads > MAX_PAYLOADS
            if batch and (too_much or not _go_together(unit, batch[0][0])):
                break
            batch.append(self._pop())
        return batch


def _go_together(one: Unit, other: Unit) -> bool:
    # A condition must see everything written before it, so it has a call of its own.
    return one.condition is None and other.condition is None


def _for_caller(error: BaseException) -> BaseException:
    # Each caller gets an error of its own: one object raised in many tasks would collect all their tracebacks.
    if isinstance(error, HeadwaterError):
        return type(error)(**error.fields)
    return StoreClosed() if isinstance(error, asyncio.CancelledError) else error
