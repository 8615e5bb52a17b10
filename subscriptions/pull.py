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
from collections import deque
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
from headwater.subscriptions.runner import SubscriptionRunner

CLAIM_INTERVAL: Final = 0.1
"""How often to ask for a lease that somebody else has, in seconds."""


class PullSubscriber:
    """One taker of batches: iterate over it. It gets the next batch once the last one is acknowledged."""

    def __init__(self, subscription: PullSubscription, name: str, seat: int, buffer: int | None = None) -> None:
        self.name = name
        self._buffer = buffer
        self.seat = seat
        """Its number among the subscription's consumers."""
        self._subscription = subscription
        self._batches: asyncio.Queue[PulledBatch | None] = asyncio.Queue()
        self._current: PulledBatch | None = None
        self._pieces: deque[PulledBatch] = deque()
        """What is left of a delivery that has more events than the buffer."""
        self._piece: PulledBatch | None = None
        self._taken: set[int] = set()
        """The numbers of what was handed out of the current delivery."""

    async def subscribed(self) -> None:
        """Wait until this process has the lease: only then are there batches."""
        await self._subscription.subscribed()

    async def leave(self) -> None:
        """Take no more batches; what was not acknowledged goes to the other subscribers. Safe to repeat.

        At-most-once only what was not taken: of the rest an attempt has failed.
        """
        await self._subscription.remove(self)

    async def handle(self, delivery: Delivered) -> None:
        """Hand a delivery over and wait for its acknowledgement; called by the runner."""
        batch = self._subscription.batch(await self._subscription.opened(delivery))
        self._current = batch
        if self._subscription.has(self):
            self._batches.put_nowait(batch)
        try:
            await batch.outcome()
        finally:
            self._current = None
            self._taken.clear()

    async def close(self) -> None:
        """Nothing to do: leaving is the subscriber's own decision."""

    @property
    def taken(self) -> frozenset[int]:
        """The numbers of those events of the current delivery that the caller's code has got."""
        return frozenset(self._taken)

    def give_back(self) -> None:
        """Let go of what was handed over: acknowledging it from now on is refused."""
        if self._current is not None:
            self._current.void()

    def end(self) -> None:
        """Let the iteration end, after what it has already."""
        self._batches.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[PulledBatch]:
        while (batch := await self._next()) is not None:
            yield batch
        self._subscription.raise_failure()

    async def _next(self) -> PulledBatch | None:
        batch = await self._next_open()
        if batch is not None:
            self._taken.update(event.number for event in batch.events)
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
            if batch is None or (not batch.over and (self._buffer is None or len(batch.events) <= self._buffer)):
                return batch
            if self._buffer is not None and not batch.over:
                self._pieces.extend(batch.pieces(self._buffer))


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
    ) -> None:
        check_kind("options", options, SubscriptionOptions)
        if options.delivery is Delivery.EXACTLY_ONCE:
            raise InvalidArgument(
                "delivery", "exactly-once needs a handler: in pull mode there is no transaction to join"
            )
        self.key = key
        self._options = options
        self._ports: dict[str, Any] = {
            "reader": reader,
            "checkpoints": checkpoints,
            "heads": heads,
            "observer": observer,
            "parking": parking,
            "boundaries": boundaries,
        }
        self._leases = leases
        self._opener = opener
        self._map = None if options.mapper is None else resolve(options.mapper)
        self._subscribers: dict[int, PullSubscriber] = {}
        self._changed = asyncio.Event()
        self._owned = asyncio.Event()
        self._runner: SubscriptionRunner | None = None
        self._owning: asyncio.Task[None] | None = None
        self._closing = False

    async def __aenter__(self) -> Self:
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
        for subscriber in tuple(self._subscribers.values()):
            await self.remove(subscriber)
        self._changed.set()
        if self._owning is not None:
            await asyncio.wait([self._owning])

    def subscriber(self, name: str, *, buffer: int | None = None) -> PullSubscriber:
        """Add a subscriber; with a ``buffer`` it gets at most so many events at a time, of a delivery that has more.

        Raises SubscriptionConflict when the name is taken, or all seats are; InvalidArgument.
        """
        check_kind("name", name, str)
        if buffer is not None:
            check_count("buffer", buffer)
        taken = [each.name for each in self._subscribers.values()]
        if name in taken:
            who = f"the subscriber {name!r}" if name else "somebody without a name"
            raise SubscriptionConflict(self.key.subscription, f"{who} takes its batches already: give each a name")
        seats = max(1, self._options.most_consumers)
        free = next((seat for seat in range(seats) if seat not in self._subscribers), None)
        if free is None:
            raise SubscriptionConflict(self.key.subscription, f"has its {seats} subscribers already: {taken}")
        subscriber = PullSubscriber(self, name, free, buffer)
        self._subscribers[free] = subscriber
        self._changed.set()
        if self._runner is not None:
            self._runner.join(free, subscriber)
        return subscriber

    async def remove(self, subscriber: PullSubscriber) -> None:
        """Let a subscriber go; when it was the last one, the checkpoint is saved and the lease given back."""
        if not self.has(subscriber):
            return
        del self._subscribers[subscriber.seat]
        if self._runner is not None:
            self._runner.leave(subscriber.seat, taken=subscriber.taken)
            if not self._subscribers:
                self._runner.drain("the last subscriber has left")
        subscriber.give_back()
        subscriber.end()

    def has(self, subscriber: PullSubscriber) -> bool:
        """Whether a subscriber has not left."""
        return self._subscribers.get(subscriber.seat) is subscriber

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
        """Raise what ended the subscription, if it was a defect."""
        if self._owning is not None and self._owning.done() and not self._owning.cancelled():
            error = self._owning.exception()
            if error is not None:
                raise error

    async def __aiter__(self) -> AsyncIterator[PulledBatch]:
        """Iterate as the only, unnamed subscriber."""
        subscriber = self.subscriber("")
        try:
            async for batch in subscriber:
                yield batch
        finally:
            await subscriber.leave()

    async def _own(self) -> None:
        while not self._closing:
            if not self._subscribers:
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
        for seat, subscriber in self._subscribers.items():
            seats[seat] = subscriber
        present = tuple(self._subscribers)
        self._runner = SubscriptionRunner(
            self._options, grant, leases=self._leases, consumers=seats, present=present, **self._ports
        )
        self._owned.set()
        try:
            if not present:
                self._runner.drain("the last subscriber has left")
            await self._runner.run()
        finally:
            self._owned.clear()
            self._runner = None
            for subscriber in self._subscribers.values():
                subscriber.give_back()
            with contextlib.suppress(StoreUnavailable):  # the session has ended, and the lease with it
                await self._leases.release([grant])

    def _ended(self, owning: asyncio.Task[None]) -> None:
        for subscriber in self._subscribers.values():
            subscriber.end()
        self._closing = self._closing or owning.cancelled() or owning.exception() is not None

    def __repr__(self) -> str:
        return f"<PullSubscription {self.key.subscription} subscribers={sorted(self._subscribers)}>"
