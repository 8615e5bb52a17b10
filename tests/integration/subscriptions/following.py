"""Runs persistent subscriptions on a real store, in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from headwater.storage.leases import Grant
from headwater.storage.model import RecordedEvent
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.checkpoints import PostgresCheckpoints
from headwater.storage.postgres.leases import LeaseSession
from headwater.storage.postgres.registry import Registry
from headwater.storage.postgres.store import PostgresEventStore
from headwater.storage.registry import StartPoint
from headwater.subscriptions.consumers import LocalConsumer
from headwater.subscriptions.core.phases import Phase
from headwater.subscriptions.handler import Handler
from headwater.subscriptions.options import Start, SubscriptionOptions
from headwater.subscriptions.runner import SubscriptionRunner
from tests.plugins.waiting import until

SOON = timedelta(milliseconds=20)
LEASE = timedelta(seconds=30)
"""Longer than any pause of a busy machine: nothing here is about how long a lease is."""


class Following:
    """One running subscription, and the batches that its handler was given."""

    def __init__(self, registry: Registry, runner: SubscriptionRunner, name: str, batches: list[list[RecordedEvent]]):
        self._registry = registry
        self._runner = runner
        self._name = name
        self.batches = batches

    @property
    def events(self) -> list[RecordedEvent]:
        """Everything that was handled, in order."""
        return [event for batch in self.batches for event in batch]

    @property
    def numbers(self) -> list[int]:
        """The numbers of what was handled, in what the subscription reads."""
        return [event.number for event in self.events]

    async def has_settled(self, number: int) -> None:
        """Wait until everything up to a number is settled and saved."""
        await until(lambda: self._saved(number), what=f"{self._name} to save {number}: {self._runner.status}")

    async def has_ended(self) -> None:
        """Wait until it delivers no more, whatever comes."""
        await until(lambda: self._runner.status.phase is Phase.FINISHED, what=f"{self._name} to end")

    async def _saved(self, number: int) -> bool:
        [state] = await self._registry.states(self._name)
        return state.checkpoint >= number


@asynccontextmanager
async def following(
    store: PostgresEventStore, name: str = "following", options: SubscriptionOptions | None = None
) -> AsyncIterator[Following]:
    """Register a subscription (or find it) and run it for the length of the block."""
    options = replace(options or SubscriptionOptions(), poll_interval=SOON, checkpoint_interval=SOON)
    registry = Registry(store.pool, store.sql, store)
    start: StartPoint = "origin"
    if options.start is not Start.ORIGIN:
        start = "current" if options.start is Start.CURRENT else options.start
    await registry.register(name, "tests:handler", {}, source=options.source, start=start)
    batches: list[list[RecordedEvent]] = []

    async def handler(received: RecordedEvent | list[RecordedEvent]) -> None:
        batches.append([received] if isinstance(received, RecordedEvent) else list(received))

    leases = LeaseSession(
        StoreOptions(url=store.options.url, schema=store.options.schema),
        host=f"{name} {store.options.schema}",
        lease=LEASE,
    )
    await leases.open()
    try:

        async def granted() -> list[Grant]:
            # A session that was closed just before holds its locks until the server comes to it.
            return await leases.claim([state.key for state in await registry.states(name)])

        grants = await until(granted)
        opener = None if store.payloads.plain else store.payloads
        consumer = LocalConsumer(Handler(handler, options, name), None, opener=opener)
        await consumer.start()
        checkpoints = PostgresCheckpoints(store.pool, store.sql)
        runner = SubscriptionRunner(
            options,
            grants[0],
            reader=store,
            leases=leases,
            checkpoints=checkpoints,
            consumers=[consumer],
        )
        running = asyncio.create_task(runner.run())
        try:
            yield Following(registry, runner, name, batches)
        finally:
            runner.stop("the test is over")
            await running
            await consumer.close()
    finally:
        await leases.close()
