"""Events are facts: what plain SQL cannot do to them, and how narrow the way around is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest

from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.events import events

REFUSED = "HW100"

DELETES = [f'DELETE FROM "headwater"."{table}"' for table in ("events", "links", "streams")]
UPDATES = [
    'UPDATE "headwater"."events" SET "type" = \'Other\'',
    'UPDATE "headwater"."links" SET "version" = 7',
    'UPDATE "headwater"."streams" SET "version" = 0',
    'UPDATE "headwater"."streams" SET "name" = "name" || \'x\'',
    'UPDATE "headwater"."streams" SET "created_at" = \'2000-01-01\'',
]
TRUNCATES = [f'TRUNCATE "headwater"."{table}" CASCADE' for table in ("events", "links", "streams")]


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresEventStore]:
    """A store that may delete for good, with two streams and links."""
    async with await PostgresEventStore.open(database_url, hard_deletes=True) as store:
        await store.append("a", events(3))
        await store.append("b", events(2))
        await store.link("links", await store.read("a"))
        yield store


async def state(conn: psycopg.AsyncConnection, statement: str) -> str | None:
    """Return the SQLSTATE that a statement fails with, or None; it is undone in any case."""
    try:
        async with conn.transaction(force_rollback=True):
            await conn.execute(statement.encode())
    except psycopg.Error as error:
        return error.sqlstate
    return None


@pytest.mark.parity("T156", "T157", "T158", "L44")
async def test_plain_statements_cannot_change_what_happened(database_url: str, store: PostgresEventStore) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        for statement in (*DELETES, *UPDATES, *TRUNCATES):
            assert await state(conn, statement) == REFUSED, statement
    assert (len(await store.read("a")), len(await store.read("links"))) == (3, 3)


@pytest.mark.parity("T159")
async def test_the_switch_allows_it_within_its_transaction(database_url: str, store: PostgresEventStore) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        async with conn.transaction():
            await conn.execute("SET LOCAL headwater.allow_change = 'on'")
            for statement in (*DELETES, *TRUNCATES):
                assert await state(conn, statement) is None, statement
        for statement in DELETES:
            assert await state(conn, statement) == REFUSED, statement


@pytest.mark.parity("L10")
@pytest.mark.parametrize("in_transaction", [False, True])
async def test_a_hard_delete_leaves_the_guard_as_it_was(
    database_url: str, store: PostgresEventStore, in_transaction: bool
) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=not in_transaction) as conn:
        await store.delete_stream("a", hard=True, conn=conn)
        await store.truncate_stream("b", 2, conn=conn)
        for statement in DELETES:
            assert await state(conn, statement) == REFUSED, statement
        if in_transaction:
            await conn.commit()
    assert [event.version for event in await store.read("b")] == [2]


@pytest.mark.parity("L28")
async def test_an_event_is_one_row_and_a_delete_scans_no_table(database_url: str, store: PostgresEventStore) -> None:
    scans = "SELECT sum(seq_scan) FROM pg_stat_xact_user_tables WHERE relname IN ('events', 'links', 'event_tags')"
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        await store.delete_stream("a", hard=True, conn=conn)
        assert await (await conn.execute(scans)).fetchone() == (0,)
        rows = await (await conn.execute('SELECT count(*) FROM "headwater"."events"')).fetchone()
        assert rows == (2,)
