"""Appends that become part of a caller's transaction only when it commits."""

from __future__ import annotations

import psycopg
import pytest

from headwater.storage.errors import StreamNotFound
from headwater.storage.model import NO_STREAM
from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.events import events


@pytest.mark.parity("L20")
async def test_an_open_transaction_holds_up_nobody(store: PostgresEventStore, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        await store.append_at_commit("slow", events(2), conn=conn)
        quick = await store.append("quick", events(1))
        assert quick.first_position == 1
        with pytest.raises(StreamNotFound):
            await store.read("slow")
        await conn.commit()
    assert [event.position for event in await store.read("slow")] == [2, 3]


async def test_what_the_caller_writes_and_the_events_are_one(store: PostgresEventStore, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        await conn.execute("CREATE TABLE orders (id int PRIMARY KEY)")
        await conn.commit()
        await conn.execute("INSERT INTO orders VALUES (1)")
        await store.append_at_commit("order-1", events(1), NO_STREAM, conn=conn)
        await store.append_at_commit("log", events(1), conn=conn)
        await conn.commit()
        await conn.execute("INSERT INTO orders VALUES (2)")
        await store.append_at_commit("order-1", events(1), NO_STREAM, conn=conn)
        with pytest.raises(psycopg.Error) as caught:
            await conn.commit()
        assert caught.value.sqlstate == "HW409"
        rows = await (await conn.execute("SELECT id FROM orders")).fetchall()
        left = await (await conn.execute('SELECT count(*) FROM "headwater"."appends_at_commit"')).fetchone()
    assert (rows, left) == ([(1,)], (0,))
    assert await store.head() == 2


async def test_a_rollback_leaves_nothing(store: PostgresEventStore, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        await store.append_at_commit("s", events(1), conn=conn)
        await conn.rollback()
    assert await store.head() == 0


async def test_a_deleted_stream_refuses_the_commit(store: PostgresEventStore, database_url: str) -> None:
    await store.append("gone", events(1))
    await store.delete_stream("gone")
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        await store.append_at_commit("gone", events(1), conn=conn)
        with pytest.raises(psycopg.Error) as caught:
            await conn.commit()
        assert caught.value.sqlstate == "HW410"
