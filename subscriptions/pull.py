"""Pull mode: events as batches that the caller's own code takes and acknowledges, wherever it runs.

Never runs a handler: the same runner as in push mode has consumers that hand over instead of working::

    async with PullSubscription(key, options, reader=..., leases=..., checkpoints=...) as subscription:
        async for batch in subscription:
            ...
            await batch.ack()
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

from headwater.storage.errors import InvalidArgument, StoreUnavailable, SubscriptionConflict
from headwater.storage.leases import Grant, PartitionKey
from headwater.subscriptions.checks import check_count, check_kind
from headwater.subscriptions.heads import Heads
from headwater.subscriptions.imports import resolve
from headwater.subscriptions.observer import Observer, Status
from headwater.subscriptions.options import Delivery, SubscriptionOptions
from headwater.subscriptions.ports import Boundaries, Checkpoints, Delivered, EventReader, Leases, Opener, Parking
from headwater.subscriptions.pulled import PulledBatch
from headwater.subscriptions.pullers import Loop, PullSubscriber, Seat
from headwater.subscriptions.runner import SubscriptionRunner

CLAIM_INTERVAL: Final = 0.1
"""How often to ask for a lease that somebody else has, in seconds."""


class _EmptySeat:
    """A consumer that is not there; it is never handed anything."""

    async def handle(self, delivery: Delivered) -> None:
        raise AssertionError(f"delivery {delivery.delivery_id} went to an empty seat")

    async def close(self) -> None:
        pass


class PullSubscription:
    """A named subscription, consumed by this process while it has the lease, by one or several subscribers.

    1. There are at most ``max(1, options.most_consumers)`` subscribers, whoever asks.
    2. It owns the lease only while there are subscribers.
    3. Losing the lease ends nothing: it is claimed again, and what was not acknowledged comes again.
    """

    def __init__(
        self,
        key: PartitionKey,
        options: SubscriptionOptions,
        *,
        reader: EventReader,
        leases: Leases,
        checkpoints: Checkpoints,
        heads: Heads | None = None,
        observer: Observer | None = None,
        opener: Opener | None = None,
        parking: Parking | None = None,
        boundaries: Boundaries | None = None,
        parks: bool = True,
    ) -> None:
        """Without ``parks``, what would be parked is skipped."""
        check_kind("options", options, SubscriptionOptions)
        if options.delivery is Delivery.EXACTLY_ONCE:
            raise InvalidArgument(
                "delivery", "exactly-once needs a handler: in pull mode there is no transaction to join"
            )
        self.key = key
        limit = options.handler_timeout
        self.time_limit = None if limit is None else limit.total_seconds()
        """How long an acknowledgement may take, in seconds, from when the batch is taken."""
        # The runner counts none: it does not know when a batch is taken.
        self._options = replace(options, handler_timeout=None)
        self._ports: dict[str, Any] = {
            "reader": reader,
            "checkpoints": checkpoints,
            "heads": heads,
            "observer": observer,
            "parking": parking,
            "boundaries": boundaries,
            "parks": parks,
        }
        self._leases = leases
        self._opener = opener
        self._map = None if options.mapper is None else resolve(options.mapper)
        self._seats: dict[int, Seat] = {}
        self._changed = asyncio.Event()
        self._owned = asyncio.Event()
        self._runner: SubscriptionRunner | None = None
        self._owning: asyncio.Task[None] | None = None
        self._closing = False
        self._failure: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._owning = asyncio.create_task(self._own(), name=f"headwater-pull-{self.key.subscription}")
        self._owning.add_done_callback(self._ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let every subscriber leave, save the checkpoint and give the lease back. Safe to repeat."""
        self._closing = True
        for seat in tuple(self._seats.values()):
            self.free(seat)
        self._changed.set()
        if self._owning is not None:
            await asyncio.wait([self._owning])

    def subscriber(self, name: str, *, buffer: int | None = None) -> PullSubscriber:
        """Add a subscriber; with a ``buffer`` it gets at most so many events at a time, of a delivery that has more.

        Use it by ``async with``, or leave it to its loop: ``async for batch in subscription.subscriber("printer")``.
        Raises SubscriptionConflict when the name is taken, or all seats are; InvalidArgument.
        """
        check_kind("name", name, str)
        if buffer is not None:
            check_count("buffer", buffer)
        subscriber = PullSubscriber(self, name, buffer)
        subscriber.sit()
        return subscriber

    def seat(self, name: str, buffer: int | None) -> Seat:
        """Give a taker a seat. Raises SubscriptionConflict when the name is taken, or all seats are."""
        taken = [each.name for each in self._seats.values()]
        if name in taken:
            who = f"the subscriber {name!r}" if name else "somebody without a name"
            raise SubscriptionConflict(self.key.subscription, f"{who} takes its batches already: give each a name")
        seats = max(1, self._options.most_consumers)
        free = next((number for number in range(seats) if number not in self._seats), None)
        if free is None:
            raise SubscriptionConflict(self.key.subscription, f"has its {seats} subscribers already: {taken}")
        seat = Seat(self, name, free, buffer)
        self._seats[free] = seat
        if self._closing:
            seat.end()
        self._changed.set()
        if self._runner is not None:
            self._runner.join(free, seat)
        return seat

    def free(self, seat: Seat) -> None:
        """Let a taker go; when it was the last one, the checkpoint is saved and the lease given back."""
        if not self.has(seat):
            return
        del self._seats[seat.number]
        if self._runner is not None:
            self._runner.leave(seat.number, taken=seat.taken)
            if not self._seats:
                self._runner.drain("the last subscriber has left")
        seat.give_back()
        seat.end()

    def has(self, seat: Seat) -> bool:
        """Whether a taker has not left."""
        return self._seats.get(seat.number) is seat

    def sweep(self) -> None:
        """Let those go whose loop was left."""
        for seat in tuple(self._seats.values()):
            if seat.abandoned:
                self.free(seat)

    def sweep_soon(self) -> None:
        """Sweep on the event loop, from wherever this is called."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.sweep)

    def went_absent(self, seat: Seat) -> None:
        """Hand a taker nothing more until it comes back; what it has is about to be taken from it."""
        if self._runner is not None:
            self._runner.retire(seat.number)

    def came_back(self, seat: Seat) -> None:
        """Hand a taker batches again."""
        if self._runner is not None and self.has(seat):
            self._runner.join(seat.number, seat)

    def interrupt(self, error: Exception) -> None:
        """Let every loop end by an error, after what it has already. The next one begins as if nothing had been."""
        for seat in tuple(self._seats.values()):
            seat.end(error)

    def fail(self, error: Exception) -> None:
        """End for good: every loop, and each one that begins later, ends by this error."""
        self._failure = self._failure or error
        self._closing = True
        self.interrupt(error)
        if self._runner is not None:
            self._runner.stop(str(error))
        self._changed.set()

    async def subscribed(self) -> None:
        """Wait until this process has the lease."""
        await self._owned.wait()

    @property
    def status(self) -> Status | None:
        """What the partition is doing; None while somebody else has the lease."""
        return None if self._runner is None else self._runner.status

    @property
    def runner(self) -> SubscriptionRunner | None:
        """What runs under the current grant, for an operator's requests."""
        return self._runner

    async def opened(self, delivery: Delivered) -> Delivered:
        """Return a delivery whose events show what they may show now."""
        if self._opener is None:
            return delivery
        return replace(delivery, events=await self._opener.open(delivery.events))

    def batch(self, delivery: Delivered) -> PulledBatch:
        """Make the batch of a delivery."""
        assert self._runner is not None
        return PulledBatch(self.key.subscription, delivery, self._runner.answer, self._map)

    def raise_failure(self) -> None:
        """Raise what ended the subscription, if it was not closed."""
        if self._failure is not None:
            raise self._failure
        if self._owning is not None and self._owning.done() and not self._owning.cancelled():
            error = self._owning.exception()
            if error is not None:
                raise error

    def __aiter__(self) -> AsyncIterator[PulledBatch]:
        """Iterate as the only, unnamed subscriber."""
        return Loop(PullSubscriber(self, "", None))

    async def _own(self) -> None:
        while not self._closing:
            if not self._seats:
                self._changed.clear()
                await self._changed.wait()
                continue
            for grant in await self._claim():
                await self._run(grant)
            if not self._closing:
                await asyncio.sleep(CLAIM_INTERVAL)

    async def _claim(self) -> list[Grant]:
        try:
            return await self._leases.claim([self.key])
        except StoreUnavailable:
            return []

    async def _run(self, grant: Grant) -> None:
        seats: list[Any] = [_EmptySeat() for _ in range(max(1, self._options.most_consumers))]
        for seat in self._seats.values():
            seats[seat.number] = seat
        present = tuple(seat.number for seat in self._seats.values() if not seat.absent)
        self._runner = SubscriptionRunner(
            self._options, grant, leases=self._leases, consumers=seats, present=present, **self._ports
        )
        self._owned.set()
        try:
            if not self._seats:
                self._runner.drain("the last subscriber has left")
            await self._runner.run()
        finally:
            self._owned.clear()
            self._runner = None
            for seat in self._seats.values():
                seat.give_back()
            with contextlib.suppress(StoreUnavailable):  # the session has ended, and the lease with it
                await self._leases.release([grant])

    def _ended(self, owning: asyncio.Task[None]) -> None:
        for seat in self._seats.values():
            seat.end()
        self._closing = self._closing or owning.cancelled() or owning.exception() is not None

    def __repr__(self) -> str:
        return f"<PullSubscription {self.key.subscription} subscribers={[each.name for each in self._seats.values()]}>"
