"""Makes, migrates, checks and removes a store's schema and database.

Never touches events: a schema is changed by numbered forward migrations only.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg import sql as composed

from headwater.storage.errors import ConfigurationError, SchemaMissing, SchemaOutdated
from headwater.storage.options import StoreOptions, join_url
from headwater.storage.postgres import roles
from headwater.storage.postgres.connect import Connection, connect
from headwater.storage.postgres.failures import translated
from headwater.storage.postgres.statements import PAYLOAD_TYPES, Migration, PayloadType, Statements, migrations


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """One migration, and when it was applied (None: it is pending)."""

    number: int
    name: str
    applied_at: datetime | None


async def migrate(options: StoreOptions, *, wait: bool = True) -> list[MigrationStatus] | None:
    """Make the schema when it is missing and apply what is pending; returns what was applied now.

    Each migration is one transaction. Concurrent runs are safe: one migrates, the others wait and find nothing to do,
    or return None at once with ``wait=False``.
    """
    with translated():
        async with await connect(options, session=True) as conn:
            while True:
                async with conn.transaction():
                    if await _value(conn, _statements(options).try_migration_lock):
                        return await _apply_pending(conn, options)
                if not wait:
                    return None
                await asyncio.sleep(0.1)


async def _apply_pending(conn: Connection, options: StoreOptions) -> list[MigrationStatus]:
    sql = _statements(options)
    # Asked first, because it needs rights in the database also where there is nothing to make.
    if not await _value(conn, sql.schema_exists, {"schema": options.schema}):
        await conn.execute(sql.create_schema)
    await conn.execute(sql.create_migrations_table)
    sql = Statements(options.schema, await payload_type(conn, sql) or options.payload)
    done = {number for number, _, _ in await (await conn.execute(sql.applied_migrations)).fetchall()}
    pending = [migration for migration in migrations() if migration.number not in done]
    for migration in pending:
        # A transaction of its own inside the one that holds the lock: a failure keeps nothing half-made.
        async with conn.transaction():
            await conn.execute(sql.migration(migration), prepare=False)
            await conn.execute(sql.record_migration, {"number": migration.number, "name": migration.name})
    if pending and await _value(conn, sql.roles_table_exists):
        await roles.make(conn, sql)
    return [row for row in await _applied(conn, sql) if row.number not in done]


async def status(options: StoreOptions) -> list[MigrationStatus]:
    """Return every known migration with the time at which it was applied."""
    with translated():
        async with await connect(options) as conn:
            return await read_status(conn, _statements(options))


async def read_status(conn: Connection, sql: Statements) -> list[MigrationStatus]:
    """Return every known migration, and any that a newer program has applied, lowest number first."""
    there = await _value(conn, sql.migrations_table_exists)
    applied = {row.number: row for row in (await _applied(conn, sql) if there else [])}
    pending = {m.number: MigrationStatus(m.number, m.name, None) for m in migrations()}
    return [row for _, row in sorted((pending | applied).items())]


async def check(conn: Connection, sql: Statements) -> PayloadType:
    """Return the payload type of a migrated schema. Raises SchemaMissing, SchemaOutdated."""
    payload = await payload_type(conn, sql)
    rows = await read_status(conn, sql)
    if payload is None or all(row.applied_at is None for row in rows):
        raise SchemaMissing(f"there is no store in schema {sql.schema!r}: run 'headwater migrate'")
    if pending := [row.name for row in rows if row.applied_at is None]:
        raise SchemaOutdated(f"schema {sql.schema!r} lacks {', '.join(pending)}: run 'headwater migrate'")
    if unknown := [row.name for row in rows if row.number > migrations()[-1].number]:
        raise SchemaOutdated(
            f"schema {sql.schema!r} was migrated by a newer program ({', '.join(unknown)}): upgrade this one"
        )
    return payload


async def is_partitioned(conn: Connection, sql: Statements) -> bool:
    """Return whether the events are kept in ranges of positions."""
    return bool(await _value(conn, sql.is_partitioned))


async def payload_type(conn: Connection, sql: Statements) -> PayloadType | None:
    """Return what the payload columns are made of, None when there are no tables yet."""
    found = await _value(conn, sql.payload_type)
    if found is not None and found not in PAYLOAD_TYPES:
        raise ConfigurationError(f"the payload column of schema {sql.schema!r} is of type {found}")
    return cast("PayloadType | None", found)


async def create(options: StoreOptions) -> bool:
    """Make the database when it is missing; returns whether it was."""
    database = database_of(options)
    with translated():
        async with await connect(_maintenance(options), session=True) as conn:
            if await _value(conn, _statements(options).database_exists, {"database": database}):
                return False
            await conn.execute(composed.SQL("CREATE DATABASE {}").format(composed.Identifier(database)))
            return True


async def init(options: StoreOptions) -> list[MigrationStatus]:
    """Make database, schema and tables as far as they are missing; returns the migrations applied now."""
    await create(options)
    return await migrate(options) or []


async def drop(options: StoreOptions, *, database: bool = False) -> bool:
    """Remove the schema with every event in it, or the whole database; returns whether there was one."""
    with translated():
        if database:
            name = database_of(options)
            mine = await _roles_of_database(options)
            async with await connect(_maintenance(options), session=True) as conn:
                there = bool(await _value(conn, _statements(options).database_exists, {"database": name}))
                await conn.execute(
                    composed.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(composed.Identifier(name))
                )
                await roles.drop_roles(conn, mine)
                return there
        async with await connect(options, session=True) as conn:
            there = bool(await _value(conn, _statements(options).schema_exists, {"schema": options.schema}))
            mine = await roles.read_roles(conn, _statements(options))
            await conn.execute(_statements(options).drop_schema)
            await roles.drop_roles(conn, mine)
            return there


async def _roles_of_database(options: StoreOptions) -> list[roles.StoreRole]:
    """Return the roles of the store whose database is to be dropped, when there is one."""
    try:
        async with await connect(options, session=True) as conn:
            return await roles.read_roles(conn, _statements(options))
    except psycopg.OperationalError:
        return []


async def reset(options: StoreOptions) -> None:
    """Remove the schema and make it anew, empty: for tests and development."""
    await drop(options)
    await migrate(options)


def database_of(options: StoreOptions) -> str:
    """Return the name of the database that the options' URL names."""
    return unquote(urlsplit(options.url).path.strip("/"))


def _maintenance(options: StoreOptions) -> StoreOptions:
    # Databases are made and removed from the one that every server has.
    url = options.session_url or options.url
    return StoreOptions(url=join_url(urlsplit(url)._replace(path="/postgres")), schema=options.schema)


def _statements(options: StoreOptions) -> Statements:
    return Statements(options.schema, options.payload)


async def _applied(conn: Connection, sql: Statements) -> list[MigrationStatus]:
    cursor = await conn.execute(sql.applied_migrations)
    return [MigrationStatus(*row) for row in await cursor.fetchall()]


async def _value(conn: Connection, statement: bytes, parameters: dict[str, Any] | None = None) -> Any:
    row = await (await conn.execute(statement, parameters)).fetchone()
    return None if row is None else row[0]


__all__ = [
    "Migration",
    "MigrationStatus",
    "check",
    "create",
    "database_of",
    "drop",
    "init",
    "is_partitioned",
    "migrate",
    "payload_type",
    "read_status",
    "reset",
    "status",
]
