"""Subjects' keys in a table beside the events: the key store of a store that is given no other.

Never sees a key itself: each is wrapped by a master key that the database does not know.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

from headwater.storage.encryption.keys import StoredKey
from headwater.storage.making import Making
from headwater.storage.options import StoreOptions
from headwater.storage.payloads import Payloads
from headwater.storage.postgres.connect import Connection, connect, row_cursor
from headwater.storage.postgres.failures import translated
from headwater.storage.postgres.statements import Statements

Lend: TypeAlias = Callable[[], AbstractAsyncContextManager[Connection]]
"""Lends a connection in autocommit; driver errors leave it as the store's errors."""


class PostgresKeyStore:
    """A :class:`~headwater.storage.encryption.keys.KeyStore` on PostgreSQL."""

    def __init__(self, lend: Lend, sql: Statements) -> None:
        self._lend = lend
        self._sql = sql

    async def by_id(self, key_ids: Sequence[uuid.UUID]) -> list[StoredKey]:
        return await self._keys(self._sql.keys_by_id, {"key_ids": list(key_ids)})

    async def by_subject(self, subjects: Sequence[str]) -> list[StoredKey]:
        return await self._keys(self._sql.keys_by_subject, {"subjects": list(subjects)})

    async def add(self, keys: Sequence[StoredKey]) -> None:
        await self._change(self._sql.add_keys, {**_columns(keys), "subjects": [key.subject for key in keys]})

    async def destroy(self, subject: str) -> list[uuid.UUID]:
        async with self._lend() as conn:
            cursor = await row_cursor(conn).execute(self._sql.destroy_key, {"subject": subject})
            return [key_id for (key_id,) in await cursor.fetchall()]

    async def wrapped_by_others(self, master_key: str, limit: int) -> list[StoredKey]:
        return await self._keys(self._sql.keys_of_other_masters, {"master_key": master_key, "limit": limit})

    async def rewrap(self, keys: Sequence[StoredKey]) -> None:
        await self._change(self._sql.rewrap_keys, _columns(keys))

    async def _keys(self, statement: bytes, wanted: dict[str, Any]) -> list[StoredKey]:
        async with self._lend() as conn:
            cursor = await row_cursor(conn).execute(statement, wanted)
            return [StoredKey(*row) for row in await cursor.fetchall()]

    async def _change(self, statement: bytes, values: dict[str, Any]) -> None:
        async with self._lend() as conn:
            await row_cursor(conn).execute(statement, values)


def remote_payloads(options: StoreOptions) -> Payloads:
    """Return how payloads are read in a process without a store; whoever only reads keys seldom needs a connection.

    Each time keys are asked for one is opened and closed: no connection is held. Raises ImportPathError,
    ConfigurationError.
    """

    @asynccontextmanager
    async def lend() -> AsyncIterator[Connection]:
        with translated():
            async with asyncio.timeout(options.timeout), await connect(options) as conn:
                yield conn

    making = Making.of(options)
    return making.payloads(PostgresKeyStore(lend, Statements(options.schema)), binary=False)


def _columns(keys: Sequence[StoredKey]) -> dict[str, Any]:
    return {
        "key_ids": [key.key_id for key in keys],
        "wrapped": [key.wrapped for key in keys],
        "master_keys": [key.master_key for key in keys],
    }
