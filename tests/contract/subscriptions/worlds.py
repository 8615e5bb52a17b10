"""The two places in which leases and checkpoints live, behind what the contract's tests need to do to them."""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import orjson
import psycopg

from headwater.storage.leases import PartitionKey
from headwater.storage.memory.subscriptions import MemoryCheckpoints, MemoryCoordination, MemoryLeases, MemoryParking
from headwater.storage.model import RecordedEvent
from headwater.storage.options import StoreOptions
from headwater.storage.parking import ParkedChange
from headwater.storage.postgres.checkpoints import PostgresCheckpoints
from headwater.storage.postgres.commands import Commands
from headwater.storage.postgres.leases import LeaseSession
from headwater.storage.postgres.registry import Registry
from headwater.storage.postgres.store import PostgresEventStore
from headwater.storage.registry import ALL_PARKED, ParkedFilter
from headwater.subscriptions.ports import Boundaries, Checkpoints, Leases, Parking
from headwater.subscriptions.testing.clock import VirtualClock
from tests.plugins.waiting import until

LEASE: Final = timedelta(seconds=30)
"""Longer than any pause of a busy machine: how long a lease is has tests of its own."""


class World(Protocol):
    """One place."""

    checkpoints: Checkpoints
    boundaries: Boundaries
    parking: Parking

    async def retry_parked(self, key: PartitionKey, where: ParkedFilter = ALL_PARKED, **options: Any) -> ParkedChange:
        """Ask for what is parked in a partition to be handled again."""
        ...

    async def cancel_retry(self, key: PartitionKey, where: ParkedFilter = ALL_PARKED, **options: Any) -> ParkedChange:
        """Take retries back."""
        ...

    async def discard_parked(self, key: PartitionKey, where: ParkedFilter = ALL_PARKED, **options: Any) -> ParkedChange:
        """Give parked events up."""
        ...

    async def reasons(self, key: PartitionKey) -> dict[int, str]:
        """Return why each event is parked that waits for somebody, by position."""
        ...

    async def let_time_pass(self, key: PartitionKey) -> None:
        """Let whatever a rate keeps back become due, as if that time were over."""
        ...

    async def edit_parked(self, key: PartitionKey, position: int, data: Any) -> None:
        """Correct the payload of a parked event."""
        ...

    async def owner(self, name: str) -> Leases:
        """Open a session."""
        ...

    async def keys(self, count: int, start: int = 0) -> list[PartitionKey]:
        """Return the partitions of a new subscription that begins after number ``start``."""
        ...

    async def break_session(self, leases: Leases) -> None:
        """End a session from the server's side; returns when its owner knows, and the server has nothing of it."""
        ...

    async def new_session(self, leases: Leases) -> None:
        """Return when the owner of a broken session has another one."""
        ...


class MemoryWorld:
    """Everything in this process."""

    def __init__(self) -> None:
        self._clock = VirtualClock()
        self._coordination = MemoryCoordination(self._clock.monotonic)
        rows = MemoryCheckpoints(self._coordination)
        self.checkpoints: Checkpoints = rows
        self.boundaries: Boundaries = rows
        self.parking: Parking = MemoryParking(self._coordination)
        self._made = 0

    async def retry_parked(self, key: PartitionKey, where: ParkedFilter = ALL_PARKED, **options: Any) -> ParkedChange:
        return MemoryParking(self._coordination).retry_parked(key, where, **options)

    async def cancel_retry(self, key: PartitionKey, where: ParkedFilter = ALL_PARKED, **options: Any) -> ParkedChange:
        return MemoryParking(self._coordination).cancel_retry(key, where, **options)

    async def discard_parked(self, key: PartitionKey, where: ParkedFilter = ALL_PARKED, **options: Any) -> ParkedChange:
        return MemoryParking(self._coordination).discard_parked(key, where, **options)

    async def reasons(self, key: PartitionKey) -> dict[int, str]:
        row = self._coordination.row(key)
        return {each: row.parked[each].reason for each in sorted(row.parked) if each not in row.retrying}

    async def let_time_pass(self, key: PartitionKey) -> None:  # there is one clock
        self._clock.advance(1_000_000)

    async def edit_parked(self, key: PartitionKey, position: int, data: Any) -> None:
        MemoryParking(self._coordination).edit(key, position, orjson.dumps(data))

    async def owner(self, name: str) -> Leases:
        return MemoryLeases(self._coordination, name)

    async def keys(self, count: int, start: int = 0) -> list[PartitionKey]:
        self._made += 100
        keys = [PartitionKey(f"subscription {self._made}", number, self._made + number) for number in range(count)]
        for key in keys:
            self._coordination.start_at(key, start)
        return keys

    async def break_session(self, leases: Leases) -> None:
        assert isinstance(leases, MemoryLeases)
        leases.end_session()

    async def new_session(self, leases: Leases) -> None:
        assert isinstance(leases, MemoryLeases)
        leases.reconnect()


class PostgresWorld:
    """Everything in a database."""

    def __init__(self, store: PostgresEventStore, stack: AsyncExitStack) -> None:
        self._store = store
        self._stack = stack
        self._registry = Registry(store.pool, store.sql, store)
        rows = PostgresCheckpoints(store.pool, store.sql)
        self.checkpoints: Checkpoints = rows
        self.boundaries: Boundaries = rows
        self._commands = Commands(store.pool, store.sql)
        self.parking: Parking = self._commands
        self._made = 0

    async def retry_parked(self, key: PartitionKey, where: ParkedFilter = ALL_PARKED, **options: Any) -> ParkedChange:
        return await self._commands.retry_parked(key.subscription, issued_by="a test", where=where, **options)

    async def cancel_retry(self, key: PartitionKey, where: ParkedFilter = ALL_PARKED, **options: Any) -> ParkedChange:
        return await self._commands.cancel_retry(key.subscription, issued_by="a test", where=where, **options)

    async def discard_parked(self, key: PartitionKey, where: ParkedFilter = ALL_PARKED, **options: Any) -> ParkedChange:
        return await self._commands.discard_parked(key.subscription, issued_by="a test", where=where, **options)

    async def reasons(self, key: PartitionKey) -> dict[int, str]:
        found = await self._commands.parked(key.subscription, statuses=("parked",))
        return {each.position: each.reason for each in found}

    async def let_time_pass(self, key: PartitionKey) -> None:  # a database of its own
        async with await psycopg.AsyncConnection.connect(self._store.options.url, autocommit=True) as conn:
            await conn.execute(
                'UPDATE "headwater"."parked_events" SET "retry_at" = "retry_at" - interval \'1000000 s\''
            )
            await conn.execute('UPDATE "headwater"."commands" SET "next_at" = "next_at" - interval \'1000000 s\'')

    async def edit_parked(self, key: PartitionKey, position: int, data: Any) -> None:
        await self._commands.edit_parked(
            key.subscription, position, orjson.dumps(data), stored=b"{}", edited_by="a test"
        )

    async def owner(self, name: str) -> Leases:
        session = LeaseSession(StoreOptions(url=self._store.options.url), host=name, lease=LEASE)
        await session.open()
        self._stack.push_async_callback(session.close)
        return session

    async def keys(self, count: int, start: int = 0) -> list[PartitionKey]:
        self._made += 1
        name = f"subscription {self._made}"
        await self._registry.register(name, "package.module:handler", {}, partitions=count, start=start)
        return [state.key for state in await self._registry.states(name)]

    async def break_session(self, leases: Leases) -> None:
        assert isinstance(leases, LeaseSession)
        number = leases.session
        async with await psycopg.AsyncConnection.connect(self._store.options.url, autocommit=True) as conn:
            cursor = await conn.execute(
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name LIKE %s",
                [f"%leases of {leases.host}"],
            )
            ended = [pid for pid, _ in await cursor.fetchall()]

            async def gone() -> bool:
                # It says goodbye before it gives its locks back.
                left = await conn.execute("SELECT FROM pg_stat_activity WHERE pid = ANY(%s)", [ended])
                return await left.fetchone() is None

            await until(gone)
        await until(lambda: leases.session != number)

    async def new_session(self, leases: Leases) -> None:
        assert isinstance(leases, LeaseSession)
        await until(lambda: leases.connected)


def event(position: int) -> RecordedEvent:
    """Return an event of the store-wide order."""
    return RecordedEvent(
        position, "order-1", position, position, uuid.UUID(int=position), "OrderPlaced", b"{}", None, None, None,
        datetime(2026, 1, 1, tzinfo=UTC), None, 1,
    )  # fmt: skip
