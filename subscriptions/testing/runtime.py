"""A program's subscriptions run in memory, in the test's own process: its handlers, real retries, no servers.

Never sleeps for a fixed time: ``caught_up`` returns when everything that was appended is handled, skipped or parked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from headwater.storage.errors import InvalidArgument, SqlRefused, StreamDeleted, StreamNotFound, SubscriptionNotFound
from headwater.storage.leases import Grant, ParkedEvent, PartitionKey, Progress, Retried
from headwater.storage.making import Making
from headwater.storage.memory.store import MemoryEventStore
from headwater.storage.memory.subscriptions import MemoryCheckpoints, MemoryCoordination, MemoryLeases, MemoryParking
from headwater.storage.memory.transaction import MemoryTransaction
from headwater.storage.model import NewEvent
from headwater.storage.options import StoreOptions
from headwater.storage.waiting import Trouble, Watched
from headwater.subscriptions.app import App
from headwater.subscriptions.consumers import LocalConsumer
from headwater.subscriptions.core.phases import Phase
from headwater.subscriptions.handler import Handler
from headwater.subscriptions.observer import Observer, Status, load_observer
from headwater.subscriptions.options import ORIGIN, Delivery, OnFailure, RetryPolicy, SubscriptionOptions
from headwater.subscriptions.runner import SubscriptionRunner

SOON = timedelta(milliseconds=1)
"""The delay between attempts and the poll interval in a test: what is promised does not depend on them."""


SYNC_TRANSACTION = "an exactly-once handler must be async to run in memory: there are no transactions for threads"

NOWHERE = "postgresql://nowhere/memory"
"""The events are in memory: of the options of a store only those about payloads count."""


class NotCaughtUp(AssertionError):
    """A subscription did not handle everything in time, or has stopped: the message says why."""


class MemoryTransactions:
    """Exactly-once in memory: the store's transaction, and the progress, both or neither."""

    def __init__(self, store: MemoryEventStore, checkpoints: MemoryCheckpoints, parking: MemoryParking) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._parking = parking

    @asynccontextmanager
    async def open(self, grant: Grant, progress: Progress | Retried) -> AsyncIterator[MemoryTransaction]:
        """Enter a transaction that saves the progress when it ends without an error."""
        async with self._store.transaction() as transaction:
            yield transaction
            if isinstance(progress, Retried):
                await self._parking.retried(grant, progress.position, progress.key)
            else:
                await self._checkpoints.save(grant, progress, conn=transaction)

    @contextmanager
    def open_sync(self, grant: Grant, progress: Progress | Retried) -> Iterator[Any]:  # noqa: ARG002  # the port's shape
        """Refuse: the in-memory store has no connections for threads."""
        raise InvalidArgument("handler", SYNC_TRANSACTION)
        yield


class MemoryRuntime:
    """Runs subscriptions on an in-memory store, for the length of the block::

    async with MemoryRuntime(app) as runtime:
        await runtime.append("order-1", NewEvent("OrderPlaced", {"total": 10}))
        await runtime.caught_up()
        assert totals == {"order-1": 10}
    """

    def __init__(self, app: App | None = None, *, observer: Observer | None = None) -> None:
        self._app = app
        making = Making.of(StoreOptions(url=NOWHERE) if app is None else app.with_payloads(StoreOptions(url=NOWHERE)))
        self.store = MemoryEventStore(
            hard_deletes=True, codec=making.codec, types=making.types, encryption=making.encryption
        )
        if observer is None and app is not None and app.observer is not None:
            observer = load_observer(app.observer)
        self._observer = observer
        self._coordination = MemoryCoordination()
        self._leases = MemoryLeases(self._coordination, "test")
        self._checkpoints = MemoryCheckpoints(self._coordination)
        self._parking = MemoryParking(self._coordination)
        self._options: dict[str, SubscriptionOptions] = {}
        self._runners: dict[str, SubscriptionRunner] = {}
        self._running: dict[str, asyncio.Task[Status]] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.store)
        self.store.subscriptions = self._watched
        try:
            for registration in self._app.registrations if self._app is not None else ():
                handlers = [
                    Handler.load(registration.handler, registration.options)
                    for _ in range(max(1, registration.options.most_consumers))
                ]
                await self._start(registration.name, handlers, registration.options)
        except BaseException:
            await self._end()  # those that run already
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        for runner in self._runners.values():
            runner.stop("the test is over")
        if self._running:
            await asyncio.wait(self._running.values())
        await self._stack.aclose()

    async def run(self, name: str, handler: Any, options: SubscriptionOptions | None = None) -> None:
        """Run one more subscription; the handler may be any function, class or instance, importable or not.

        Raises InvalidArgument for a name that is taken, and for exactly-once delivery to a handler that is not async;
        ConfigurationError for what cannot be called with (event) or (event, context).
        """
        options = options or SubscriptionOptions()
        await self._start(
            name, [Handler(handler, options, name) for _ in range(max(1, options.most_consumers))], options
        )

    async def append(self, stream: str, *events: NewEvent) -> int:
        """Append events; returns the position of the last one."""
        return (await self.store.append(stream, events)).last_position

    async def caught_up(self, *names: str, within: float = 10.0) -> None:
        """Wait until these subscriptions (all, without names) have settled everything that is stored now.

        Raises NotCaughtUp, with the reason, when one has stopped or does not get there ``within`` so many seconds;
        SubscriptionNotFound for one that does not run here.
        """
        for name in names:
            self._known(name)
        heads = {name: await self._head_of(self._options[name].source) for name in names or self._runners}
        for name, head in heads.items():
            await self._wait(name, head, within)

    def status(self, name: str) -> Status:
        """What a subscription is doing."""
        return self._known(name).status

    def runner(self, name: str) -> SubscriptionRunner:
        """What runs a subscription: to pause, resume or rewind it."""
        return self._known(name)

    def parked(self, name: str) -> Sequence[ParkedEvent]:
        """What was set aside and not settled since, by position."""
        self._known(name)
        parked: Mapping[int, ParkedEvent] = self._coordination.row(_key(name)).parked
        return [parked[position] for position in sorted(parked)]

    def retry_parked(self, name: str) -> None:
        """Let everything that is parked be handled again."""
        runner = self._known(name)
        self._parking.retry_parked(_key(name))
        runner.retry_parked()

    def _known(self, name: str) -> SubscriptionRunner:
        """Return what runs a subscription. Raises SubscriptionNotFound, with the names that there are."""
        if name not in self._runners:
            raise SubscriptionNotFound(name, tuple(sorted(self._runners)))
        return self._runners[name]

    async def _start(self, name: str, handlers: Sequence[Handler], options: SubscriptionOptions) -> None:
        if name in self._runners:
            raise InvalidArgument("name", f"{name!r} runs already: a runtime has one subscription of a name")
        if options.delivery is Delivery.EXACTLY_ONCE and not all(handler.is_async for handler in handlers):
            raise InvalidArgument("handler", f"{name!r}: {SYNC_TRANSACTION}")
        if options.partitions > 1:
            # One partition does what all would do together, in one order more.
            options = replace(options, partitions=1)
        self._coordination.start_at(_key(name), await self._start_after(options))
        # No retry mends it, and parked it would look like a failure of the handler.
        by_error = ((SqlRefused, RetryPolicy(attempts=1, then=OnFailure.STOP)), *options.retry.by_error)
        retry = replace(options.retry, first_delay=SOON, max_delay=SOON, by_error=by_error)
        options = replace(options, retry=retry, poll_interval=SOON * 5, checkpoint_interval=SOON)
        transactions = MemoryTransactions(self.store, self._checkpoints, self._parking)
        opener = None if self.store.payloads.plain else self.store.payloads
        consumers = [
            LocalConsumer(handler, transactions, index, opener=opener) for index, handler in enumerate(handlers)
        ]
        for consumer in consumers:
            self._stack.push_async_callback(consumer.close)  # also of one that does not start: it may have a thread
            await consumer.start()
        self._options[name] = options
        (grant,) = await self._leases.claim([_key(name)])
        self._runners[name] = SubscriptionRunner(
            options,
            grant,
            reader=self.store,
            leases=self._leases,
            checkpoints=self._checkpoints,
            consumers=consumers,
            parking=self._parking,
            boundaries=self._checkpoints,
            observer=self._observer,
        )
        self._running[name] = asyncio.create_task(self._runners[name].run(), name=f"headwater-{name}")

    def _watched(self, name: str) -> Watched | None:
        if name not in self._runners:
            return None
        status, progress = self._runners[name].status, self._coordination.row(_key(name)).progress
        trouble = Trouble(status.phase.value, status.reason, status.lag)
        return Watched(self._options[name].source, progress.checkpoint, progress.stream_id, trouble)

    async def _start_after(self, options: SubscriptionOptions) -> int:
        start = options.start
        if isinstance(start, datetime):
            return await self.store.position_at(start)
        if isinstance(start, int):
            return start
        return 0 if start is ORIGIN else await self._head_of(options.source)

    async def _head_of(self, source: str) -> int:
        with suppress(StreamNotFound, StreamDeleted):
            return (await self.store.stream_info(source)).version
        return 0

    async def _wait(self, name: str, head: int, within: float) -> None:
        runner, running = self._runners[name], self._running[name]
        end = asyncio.get_running_loop().time() + within
        while not (status := runner.status).watermark >= head or status.in_flight:
            if running.done() and not running.cancelled() and (error := running.exception()) is not None:
                raise error
            if running.done() or status.phase in (Phase.FAILED, Phase.PAUSED):
                raise NotCaughtUp(f"{name} is {status.phase.value}: {status.reason}")
            if asyncio.get_running_loop().time() > end:
                raise NotCaughtUp(f"{name} has settled {status.watermark} of {head} after {within} s: {status}")
            await asyncio.sleep(0.001)


def _key(name: str) -> PartitionKey:
    return PartitionKey(name, 0, 0)
