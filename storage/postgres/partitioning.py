"""Puts the events of a store into ranges of positions: when it is made, or later, while it is in use.

Never copies an event: what is there becomes the first range as it stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from headwater.storage.checks import check_number
from headwater.storage.errors import ConfigurationError, StoreUnavailable
from headwater.storage.options import StoreOptions
from headwater.storage.postgres import roles, schema
from headwater.storage.postgres.connect import Connection, connect, row_cursor
from headwater.storage.postgres.failures import translated
from headwater.storage.postgres.statements import Statements

ROOM: Final = 1_000_000
"""How many events may be appended while a store that is in use is partitioned, at least."""
_BATCH: Final = 10_000
_TRIES: Final = 30


async def partition(options: StoreOptions, size: int) -> bool:
    """Partition a migrated store by ranges of ``size`` positions; returns whether it was not before.

    May be done while the store is in use, and again after it was interrupted. Appends wait for no longer than they do
    for each other, except for three moments in which locks on the events are asked for, half a second each at most.
    The first range takes in all that is there, and at least a million positions more.
    Raises SchemaMissing, SchemaOutdated, StoreUnavailable (safe to repeat).
    """
    check_number("partition_size", size, 1, 1_000_000_000_000)
    async with ranges_lock(options) as conn:
        sql = Statements(options.schema, await schema.check(conn, Statements(options.schema)))
        if await schema.is_partitioned(conn, sql):
            return False
        if await _row(conn, sql.partitioning_state) is None:
            await patiently(conn, sql.begin_partitioning, {"size": size})
        [size, ids_to, first_range_to, *_] = await _row(conn, sql.partitioning_state)
        head = (await _row(conn, sql.head))[0]
        for after in range(ids_to, head, _BATCH):
            await conn.execute(sql.copy_ids, {"after": after, "to": min(after + _BATCH, head)})
        if first_range_to is None:
            await patiently(conn, sql.bound_first_range, {"room": ROOM})
        await conn.execute(sql.validate_first_range)
        await patiently(conn, sql.partition_events)
        if await roles.read_roles(conn, sql):
            await conn.execute(sql.grant_roles)
        return True


@asynccontextmanager
async def ranges_lock(options: StoreOptions) -> AsyncIterator[Connection]:
    """Lend a connection of its own that nobody else converts, archives or restores beside. Raises StoreUnavailable."""
    with translated():
        async with await connect(options, session=True) as conn:
            sql = Statements(options.schema)
            if not (await _row(conn, sql.try_ranges_lock))[0]:
                raise StoreUnavailable(
                    f"the ranges of schema {options.schema!r} are being worked on by another process"
                )
            try:
                await roles.become_admin(conn, sql)
                yield conn
            finally:
                # The server ends a session that is closed when it comes to it: who works on the ranges next may be
                # quicker.
                if conn.info.transaction_status is TransactionStatus.IDLE:
                    with suppress(psycopg.Error, TimeoutError):
                        async with asyncio.timeout(options.timeout):
                            await conn.execute(sql.leave_ranges)


async def check_partitioned(conn: Connection, options: StoreOptions) -> Statements:
    """Return the statements of a partitioned store. Raises ConfigurationError for another one."""
    sql = Statements(options.schema, await schema.check(conn, Statements(options.schema)), partitioned=True)
    if not await schema.is_partitioned(conn, sql):
        raise ConfigurationError(
            f"the store in schema {options.schema!r} is not partitioned: run 'headwater partition' first"
        )
    return sql


async def patiently(conn: Connection, statement: bytes, wanted: dict[str, Any] | None = None) -> None:
    """Execute a statement when the locks that it needs are free."""
    await when_free(lambda: conn.execute(statement, wanted))


async def when_free(work: Callable[[], Awaitable[object]]) -> None:
    """Ask for a lock again and again, a short time each: whoever queues behind it waits no longer than that."""
    for tries_left in reversed(range(_TRIES)):
        try:
            await work()
        except psycopg.errors.LockNotAvailable:
            if not tries_left:
                raise
            await asyncio.sleep(0.5)
        else:
            return


async def _row(conn: Connection, statement: bytes) -> Any:
    return await (await row_cursor(conn).execute(statement)).fetchone()
