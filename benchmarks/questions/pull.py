"""How fast does pull mode go, when the caller's own code acknowledges each event by itself?"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Final

from benchmarks.bench import Bench
from benchmarks.candidates import headwater, library, limit
from benchmarks.fill import fill
from benchmarks.measure import RATE, Case, Sample, Target
from headwater.storage.leases import PartitionKey
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.checkpoints import PostgresCheckpoints
from headwater.storage.postgres.leases import LeaseSession
from headwater.storage.postgres.registry import Registry
from headwater.storage.postgres.store import PostgresEventStore
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.pull import PullSubscription

EVENTS: Final = 200_000
BATCH: Final = 1_000


class Puller:
    """A program that pulls: a store, a lease session, and a new subscription for each round."""

    def __init__(self, store: PostgresEventStore, leases: LeaseSession) -> None:
        self._store = store
        self._leases = leases
        self._checkpoints = PostgresCheckpoints(store.pool, store.sql)
        self._registry = Registry(store.pool, store.sql, store)
        self._numbers = itertools.count(1)

    async def pull(self, events: int, each: bool) -> Sample:
        """Take everything; acknowledge each event, or each batch. Ends when the subscription is closed and saved."""
        options = SubscriptionOptions(batch_size=BATCH)
        name = f"pull-{next(self._numbers)}"
        await self._registry.register(name, "", {})
        key = await self._key(name)
        found = 0
        begun = time.perf_counter()
        async with PullSubscription(
            key, options, reader=self._store, leases=self._leases, checkpoints=self._checkpoints
        ) as subscription:
            async for batch in subscription:
                found += len(batch.events)
                if each:
                    for event in batch.events:
                        await batch.ack(event)
                else:
                    await batch.ack()
                if found >= events:
                    break
        seconds = time.perf_counter() - begun
        [state] = await self._registry.states(name)
        return Sample(events, min(found, state.checkpoint), seconds)

    async def _key(self, name: str) -> PartitionKey:
        [state] = await self._registry.states(name)
        return state.key


async def cases(bench: Bench) -> AsyncIterator[Case]:
    """Yield acknowledgements of single events and of batches."""
    events = 5_000 if bench.effort.quick else EVENTS
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(bench.database())
        recorder = await stack.enter_async_context(library.recorder(bench))
        await headwater.make_schema(url)
        await asyncio.to_thread(fill, url, events)
        await asyncio.to_thread(recorder.fill, events // 100, 100)
        store = await stack.enter_async_context(await PostgresEventStore.open(url))
        # No figure depends on the lease; to lose it to a pause of the machine would spoil the round.
        leases = LeaseSession(StoreOptions(url=url), host="benchmarks", lease=timedelta(seconds=30))
        await leases.open()
        stack.push_async_callback(leases.close)
        rows = await stack.enter_async_context(limit.rows(url, 1))
        puller = Puller(store, leases)
        for name, each in (("pull, ack each event", True), ("pull, ack each batch", False)):
            if bench.effort.wants(name):
                candidates = {
                    headwater.NAME: partial(puller.pull, events, each),
                    library.NAME: partial(recorder.subscribe, events),
                    limit.SELECT: partial(rows.read_everything, BATCH, events),
                }
                wanted = Target(headwater.NAME, figure=RATE, at_least=25_000 if each else None)
                yield Case(name, candidates, {"events": events}, [wanted, Target(headwater.NAME, library.NAME)])
