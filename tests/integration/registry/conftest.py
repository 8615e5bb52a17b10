"""An open store, its registry and its commands, on a database of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import pytest

from headwater.storage.leases import Grant
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.checkpoints import PostgresCheckpoints
from headwater.storage.postgres.commands import Commands
from headwater.storage.postgres.leases import LeaseSession
from headwater.storage.postgres.registry import Registry
from headwater.storage.postgres.store import PostgresEventStore
from headwater.storage.postgres.transactions import PostgresTransactions

LONG: Final = timedelta(seconds=30)
"""A lease that nobody loses by being kept waiting: none of these tests is about its length."""


@dataclass
class Office:
    """Everything that operators and owners use."""

    store: PostgresEventStore
    registry: Registry
    commands: Commands
    checkpoints: PostgresCheckpoints
    transactions: PostgresTransactions
    leases: LeaseSession

    async def granted(self, name: str = "orders", partitions: int = 1) -> list[Grant]:
        """Register a subscription and be granted all of its partitions."""
        await self.registry.register(name, "package.module:handler", {}, partitions=partitions)
        return await self.leases.claim([state.key for state in await self.registry.states(name)])


@pytest.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    """The office of one test."""
    options = StoreOptions(url=database_url)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(await PostgresEventStore.open(options=options))
        leases = LeaseSession(options, host="host", lease=LONG)
        await leases.open()
        stack.push_async_callback(leases.close)
        checkpoints = PostgresCheckpoints(store.pool, store.sql)
        transactions = PostgresTransactions(store.pool, store.sql, checkpoints, options)
        stack.callback(transactions.close)
        yield Office(
            store,
            Registry(store.pool, store.sql, store),
            Commands(store.pool, store.sql),
            checkpoints,
            transactions,
            leases,
        )
