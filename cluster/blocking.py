"""Pulling for synchronous programs: every call is the asynchronous one, run on an event loop in a thread.

Holds no logic of its own. Any number of threads may take batches, each as a subscriber with a name.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Any, Self

from headwater.cluster.options import ClusterOptions
from headwater.cluster.pulling import pull
from headwater.storage.blocking import LoopThread
from headwater.storage.errors import StoreClosed
from headwater.storage.model import RecordedEvent
from headwater.subscriptions.observer import Observer, Status
from headwater.subscriptions.options import OnFailure, SubscriptionOptions
from headwater.subscriptions.pull import PullSubscription
from headwater.subscriptions.pulled import PulledBatch
from headwater.subscriptions.pullers import Loop, PullSubscriber


class BlockingBatch:
    """A :class:`~headwater.subscriptions.pulled.PulledBatch` without ``await``.

    Once the subscription is closed its acknowledgements raise StoreClosed.
    """

    def __init__(self, batch: PulledBatch, thread: LoopThread) -> None:
        self._batch = batch
        self._thread = thread
        self.events: Sequence[RecordedEvent] = batch.events
        self.attempt = batch.attempt
        self.epoch = batch.epoch
        self.replaying = batch.replaying
        self.side_effects = batch.side_effects

    @property
    def items(self) -> list[Any]:
        """The events as the subscription's mapper makes them."""
        return self._batch.items

    @property
    def over(self) -> bool:
        """Whether there is nothing left to acknowledge."""
        return self._batch.over

    def ack(self, *events: RecordedEvent | int) -> None:
        """Say that these events are handled; without any: all that is left."""
        self._thread.call(self._batch.ack(*events))

    def ack_through(self, number: int) -> None:
        """Say that everything of this batch up to a number is handled."""
        self._thread.call(self._batch.ack_through(number))

    def nack(self, error: str | Exception = "not handled", action: OnFailure | None = None) -> None:
        """Say that what is left was not handled, and why."""
        self._thread.call(self._batch.nack(error, action))

    def __repr__(self) -> str:
        return f"<BlockingBatch of {self._batch!r}>"


class BlockingSubscriber:
    """A :class:`~headwater.subscriptions.pullers.PullSubscriber` without ``await``, for one thread."""

    def __init__(self, subscriber: PullSubscriber, thread: LoopThread) -> None:
        self._subscriber = subscriber
        self._thread = thread

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def take(self, timeout: float | None = None) -> BlockingBatch | None:
        """Wait for the next batch, outside of a loop; None when there is none any more.

        Raises TimeoutError after so many seconds without one.
        """
        try:
            batch = self._thread.call(_take(self._subscriber, limit=timeout))
        except StoreClosed:
            return None
        return None if batch is None else BlockingBatch(batch, self._thread)

    def leave(self) -> None:
        """Take no more batches; what was not acknowledged goes to the other subscribers. Safe to repeat."""
        with suppress(StoreClosed):
            self._thread.call(self._subscriber.leave())

    def __iter__(self) -> Iterator[BlockingBatch]:
        loop = Loop(self._subscriber)
        try:
            with suppress(StoreClosed):  # closed by another thread
                while (batch := self._thread.call(_next(loop))) is not None:
                    yield BlockingBatch(batch, self._thread)
        finally:
            loop.leave()

    def __repr__(self) -> str:
        return f"<BlockingSubscriber of {self._subscriber!r}>"


class BlockingPull:
    """A pull subscription without ``await``, for the length of a block; see :func:`headwater.pull`::

    with BlockingPull("invoices", SubscriptionOptions(batch_size=100)) as subscription:
        for batch in subscription:
            ...
            batch.ack()
    """

    def __init__(
        self,
        name: str,
        options: SubscriptionOptions | None = None,
        *,
        cluster: ClusterOptions | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.name = name
        self._context = pull(name, options, cluster=cluster, observer=observer)
        self._ending = threading.Lock()
        self._thread: LoopThread | None = None
        self._subscription: PullSubscription | None = None

    def __enter__(self) -> Self:
        self._thread = LoopThread()
        try:
            self._subscription = self._thread.call(self._context.__aenter__())
        except BaseException:
            self._thread.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let every subscriber leave, save the checkpoint and give the lease back. From any thread; safe to repeat.

        Loops of other threads end.
        """
        with self._ending:
            subscription, self._subscription = self._subscription, None
            if subscription is None or self._thread is None:
                return
            try:
                self._thread.call(_exit(self._context))
            finally:
                self._thread.close()

    def subscriber(self, name: str, *, buffer: int | None = None) -> BlockingSubscriber:
        """Add a subscriber, one for each thread that takes batches. Raises StoreClosed when this one is closed."""
        subscription, thread = self._open()

        async def add() -> PullSubscriber:
            return subscription.subscriber(name, buffer=buffer)

        return BlockingSubscriber(thread.call(add()), thread)

    @property
    def status(self) -> Status | None:
        """What the partition is doing; None while somebody else has the lease."""
        subscription, thread = self._open()

        async def look() -> Status | None:
            return subscription.status

        return thread.call(look())

    def _open(self) -> tuple[PullSubscription, LoopThread]:
        if self._subscription is None or self._thread is None:
            raise StoreClosed
        return self._subscription, self._thread

    def __iter__(self) -> Iterator[BlockingBatch]:
        """Iterate as the only, unnamed subscriber."""
        subscription, thread = self._open()
        return iter(BlockingSubscriber(PullSubscriber(subscription, "", None), thread))

    def __repr__(self) -> str:
        return f"<BlockingPull {self.name}>"


async def _take(subscriber: PullSubscriber, limit: float | None) -> PulledBatch | None:
    async with asyncio.timeout(limit):
        return await subscriber.take()


async def _next(loop: Loop) -> PulledBatch | None:
    return await anext(loop, None)


async def _exit(context: AbstractAsyncContextManager[PullSubscription]) -> None:
    await context.__aexit__(None, None, None)
