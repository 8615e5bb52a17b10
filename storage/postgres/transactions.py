"""Transactions in which a handler's writes and the checkpoint commit together, under the epoch, or not at all.

Never retries: what a broken connection leaves unknown, the caller learns from the saved checkpoint.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg

from headwater.storage.errors import UnexpectedAck
from headwater.storage.leases import Grant, Progress, Retried
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.checkpoints import Found, PostgresCheckpoints, fence, stale
from headwater.storage.postgres.connect import Connection, Parting, Pool, connection_settings
from headwater.storage.postgres.failures import outages_translated, translated
from headwater.storage.postgres.pools import ended
from headwater.storage.postgres.statements import Statements


class _BlockingConnection(Parting, psycopg.Connection[Any]):
    """One for handlers that run in a thread."""


class PostgresTransactions:
    """Exactly-once effects: open one transaction for each delivery.

    1. A transaction under a stale epoch raises StaleEpoch and writes nothing, at its beginning or at its end.
    2. The handler's own errors pass through; then nothing was written either. What the server would have refused
       anybody (no room, no writes allowed) is no error of the handler's, but StoreUnavailable.
    3. No more than the pool's size are open for async handlers at a time, nor than ``options.pool_size`` for sync
       ones; the others wait for their turn.
    """

    def __init__(self, pool: Pool, sql: Statements, checkpoints: PostgresCheckpoints, options: StoreOptions) -> None:
        """``pool`` is for handlers alone, made by ``handlers_pool``."""
        self._pool = pool
        self._sql = sql
        self._checkpoints = checkpoints
        self._options = options
        self._idle: list[_BlockingConnection] = []
        self._closed = False
        self._lock = threading.Lock()
        """Guards the two above: nothing may be put aside when nobody closes it any more."""
        self._turns = threading.BoundedSemaphore(options.pool_size)

    @asynccontextmanager
    async def open(self, grant: Grant, progress: Progress | Retried) -> AsyncIterator[Connection]:
        """Enter a transaction on a connection of the pool; leaving it without an error saves and commits."""
        with outages_translated():
            async with self._begun(grant) as (conn, found):
                yield conn
                if isinstance(progress, Retried):
                    cursor = await conn.execute(self._sql.retried_parked, _settled(grant, progress))
                    _check(grant, progress, await cursor.fetchone())
                else:
                    await self._checkpoints.save(grant, progress, conn=conn, found=found)

    @asynccontextmanager
    async def _begun(self, grant: Grant) -> AsyncIterator[tuple[Connection, Found]]:
        async with self._pool.connection() as conn, conn.transaction():
            cursor = await conn.execute(self._sql.begin_fenced, fence(grant))
            yield conn, _found(grant, await cursor.fetchone())

    @contextmanager
    def open_sync(self, grant: Grant, progress: Progress | Retried) -> Iterator[psycopg.Connection[Any]]:
        """Do the same for a handler that runs in a thread, on a synchronous connection."""
        with outages_translated(), self._turns, self._lent() as conn, conn.transaction():
            found = _found(grant, conn.execute(self._sql.begin_fenced, fence(grant)).fetchone())
            yield conn
            if isinstance(progress, Retried):
                cursor = conn.execute(self._sql.retried_parked, _settled(grant, progress))
                _check(grant, progress, cursor.fetchone())
            else:
                self._checkpoints.save_blocking(grant, progress, conn, found)

    def close(self) -> None:
        """Close the synchronous connections that are idle; those in use close when they are given back.

        One is in use for as long as a handler that was left behind in its thread does not end.
        """
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for conn in idle:
            conn.close()

    @contextmanager
    def _lent(self) -> Iterator[psycopg.Connection[Any]]:
        conn = self._take()
        try:
            yield conn
        finally:
            self._give_back(conn)

    def _take(self) -> _BlockingConnection:
        while (conn := self._idle_one()) is not None:
            if not ended(conn):
                return conn
            conn.close()
        with translated():
            return _BlockingConnection.connect(self._options.url, **connection_settings(self._options))

    def _idle_one(self) -> _BlockingConnection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _give_back(self, conn: _BlockingConnection) -> None:
        usable = not conn.broken and conn.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
        with self._lock:
            kept = usable and not self._closed
            if kept:
                self._idle.append(conn)
        if not kept:
            conn.close()


def _found(grant: Grant, row: Any) -> Found:
    if row is None:
        raise stale(grant)
    return row[0], row[1]


def _settled(grant: Grant, retried: Retried) -> dict[str, Any]:
    return fence(grant) | {
        "position": retried.position,
        "key": retried.key,
        "status": "settled",
        "error": None,
    }


def _check(grant: Grant, retried: Retried, row: Any) -> None:
    if row is None:
        raise stale(grant)
    if row[0] == 0:
        # Settled already, by a transaction that was believed dead: this one must not add its effects.
        raise UnexpectedAck(grant.key.subscription, number=retried.position)
