"""The group roles of a store: who may append, who may read and run subscriptions, who may delete and migrate.

Never needed: where roles cannot be made, everything works for the owner of the tables.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import psycopg
from psycopg import sql as composed

from headwater.storage.checks import check_name
from headwater.storage.errors import ConfigurationError, InvalidArgument
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.connect import Connection, connect, row_cursor
from headwater.storage.postgres.failures import translated
from headwater.storage.postgres.statements import Statements

RoleKind: TypeAlias = Literal["append", "run", "admin"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreRole:
    """A group role of a store: it cannot log in, other roles are put into it."""

    kind: RoleKind
    name: str
    members: Sequence[str]


async def make(conn: Connection, sql: Statements) -> str | None:
    """Make the roles and grant them what they need now; returns why not, when the user may not do that.

    Safe to repeat; runs in a transaction of its own, or in a savepoint.
    """
    try:
        async with conn.transaction():
            problem: str | None = await _value(conn, sql.make_roles)
            if problem is None:
                await conn.execute(sql.grant_roles)
    except psycopg.errors.InsufficientPrivilege as error:
        problem = str(error)
    if problem is not None:
        _log.warning("no roles for schema %r: %s. Everything works for the owner of the tables.", sql.schema, problem)
    return problem


async def read_roles(conn: Connection, sql: Statements) -> list[StoreRole]:
    """Return the roles that are there; none in a schema that is not there, or was made without them."""
    if not await _value(conn, sql.roles_table_exists):
        return []
    return [StoreRole(*row) for row in await (await row_cursor(conn).execute(sql.list_roles)).fetchall()]


async def list_roles(options: StoreOptions) -> list[StoreRole]:
    """Return the roles of a store with their members."""
    with translated():
        async with await connect(options) as conn:
            return await read_roles(conn, Statements(options.schema))


async def ensure_roles(options: StoreOptions) -> list[StoreRole]:
    """Make the roles of a migrated store where they are missing, and grant anew. Raises ConfigurationError."""
    sql = Statements(options.schema)
    with translated():
        async with await connect(options, session=True) as conn:
            if problem := await make(conn, sql):
                raise ConfigurationError(f"the roles cannot be made: {problem}")
            return await read_roles(conn, sql)


async def change_member(options: StoreOptions, kind: str, member: str, *, remove: bool = False) -> str:
    """Put a role of the server, usually a login, into a role of the store, or take it out; returns that one's name.

    Safe to repeat. Raises InvalidArgument, ConfigurationError.
    """
    if kind not in get_args(RoleKind):
        raise InvalidArgument("role", f"{kind!r} is none of {', '.join(get_args(RoleKind))}")
    check_name("member", member)
    sql = Statements(options.schema)
    with translated():
        async with await connect(options, session=True) as conn:
            name = next((role.name for role in await read_roles(conn, sql) if role.kind == kind), None)
            if name is None:
                raise ConfigurationError(
                    f"the store in schema {options.schema!r} has no roles: run 'headwater roles --make'"
                )
            change = "REVOKE {} FROM {}" if remove else "GRANT {} TO {}"
            await conn.execute(composed.SQL(change).format(composed.Identifier(name), composed.Identifier(member)))
            return name


async def become_admin(conn: Connection, sql: Statements) -> None:
    """Act as the store's admin role for the rest of the session, where there is one and the user is in it."""
    if await _value(conn, sql.roles_table_exists):
        await conn.execute(sql.become_admin)


async def drop_roles(conn: Connection, roles: Sequence[StoreRole]) -> None:
    """Remove roles whose store is gone, as far as nothing else, such as a copy of the database, counts on them."""
    for role in roles:
        try:
            async with conn.transaction():
                await conn.execute(composed.SQL("DROP ROLE IF EXISTS {}").format(composed.Identifier(role.name)))
        except (psycopg.errors.DependentObjectsStillExist, psycopg.errors.InsufficientPrivilege) as error:
            _log.info("role %s stays: %s", role.name, error)


async def _value(conn: Connection, statement: bytes) -> Any:
    row = await (await conn.execute(statement)).fetchone()
    return None if row is None else row[0]
