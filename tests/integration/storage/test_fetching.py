"""Reads that are made while the server still sends: whole, in order, and nothing of one is left for the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from headwater.storage.errors import InvalidArgument, StoreUnavailable
from headwater.storage.model import Gate
from headwater.storage.postgres import fetching, lanes
from headwater.storage.postgres.connect import StoreConnection
from headwater.storage.postgres.fetching import PIECE, can_fetch, fetch
from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.events import events
from tests.plugins.waiting import until

LENGTH = 2 * PIECE + 1
LOCKED = 'LOCK TABLE "headwater"."events" IN ACCESS EXCLUSIVE MODE'
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
UNGUARDED = "SET session_replication_role = replica"
TOO_LATE = """UPDATE "headwater"."events" SET "created_at" = 'infinity' WHERE "stream" = 's' AND "version" = %s"""
FAILS_LATE = b"SELECT 1000 / (%(at)s::bigint - n) FROM generate_series(1, 1000) AS n"
NUMBERS = b"SELECT n FROM generate_series(1, %(last)s::bigint) AS n"


@pytest.fixture
async def alone(database_url: str) -> AsyncIterator[PostgresEventStore]:
    """A store with one connection, and a stream ``s`` of more events than come in a piece."""
    async with await PostgresEventStore.open(database_url, pool_size=1) as store:
        await store.append("s", events(LENGTH))
        yield store


async def session(store: PostgresEventStore) -> int:
    async with store.connection() as conn:
        return conn.info.backend_pid


@pytest.mark.parametrize("in_pieces", [fetching.IN_PIECES, False])
@pytest.mark.parametrize("length", [PIECE - 1, PIECE, PIECE + 1, LENGTH])
async def test_pieces_make_a_whole_page(
    alone: PostgresEventStore, monkeypatch: pytest.MonkeyPatch, length: int, in_pieces: bool
) -> None:
    monkeypatch.setattr(fetching, "IN_PIECES", in_pieces)
    forward = await alone.read("s", limit=length)
    assert [event.number for event in forward] == list(range(1, length + 1))
    assert await alone.read_all(limit=length) == forward
    backward = await alone.read("s", limit=length, backward=True)
    assert [event.number for event in backward] == list(range(LENGTH, LENGTH - length, -1))


async def test_a_read_in_a_callers_transaction_sees_what_that_has_written(alone: PostgresEventStore) -> None:
    async with alone.connection() as conn, conn.transaction(force_rollback=True):
        await alone.append("s", events(1), conn=conn)
        assert len(await alone.read("s", conn=conn)) == LENGTH + 1
    assert len(await alone.read("s")) == LENGTH


async def test_reads_on_one_connection_take_turns(alone: PostgresEventStore) -> None:
    async with alone.connection() as conn:
        pages = await asyncio.gather(*[alone.read("s", start=start, conn=conn) for start in range(1, 20)])
    assert [page[0].number for page in pages] == list(range(1, 20))
    assert {page[-1].number for page in pages} == {LENGTH}


async def test_a_read_that_is_cancelled_leaves_its_connection_free(
    alone: PostgresEventStore, database_url: str
) -> None:
    before = await session(alone)
    async with await psycopg.AsyncConnection.connect(database_url) as holder:
        await holder.execute(LOCKED)
        given_up = asyncio.create_task(alone.read("s"))
        await until(lambda: somebody_waits(database_url))
        given_up.cancel()
        await asyncio.wait([given_up])
        assert given_up.cancelled()
    assert [event.number for event in await alone.read("s", start=3, limit=1)] == [3]
    assert await session(alone) == before


async def test_a_read_that_takes_too_long_ends_and_leaves_its_connection_free(database_url: str) -> None:
    async with (
        await PostgresEventStore.open(database_url, pool_size=1) as store,
        await psycopg.AsyncConnection.connect(database_url) as holder,
    ):
        await store.append("s", events(LENGTH))
        await holder.execute(LOCKED)
        patient, store.options = store.options, replace(store.options, timeout=0.5)
        with pytest.raises(StoreUnavailable):
            await store.read("s")
        store.options = patient
        await holder.rollback()
        assert len(await store.read("s")) == LENGTH


async def test_a_row_that_cannot_be_made_an_event_fails_its_own_read_only(
    alone: PostgresEventStore, database_url: str
) -> None:
    before = await session(alone)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        await conn.execute(UNGUARDED)
        await conn.execute(TOO_LATE, [PIECE + 1])
    with pytest.raises(InvalidArgument, match="timestamp too large"):
        await alone.read("s")
    assert len(await alone.read("s", limit=PIECE)) == PIECE
    assert await session(alone) == before


async def test_an_answer_that_ends_in_an_error_is_no_answer(alone: PostgresEventStore) -> None:
    make: Any = tuple
    async with alone.connection() as conn:
        assert isinstance(conn, StoreConnection)
        with pytest.raises(psycopg.errors.DivisionByZero):
            await fetch(conn, FAILS_LATE, {"at": 500}, make)
        assert can_fetch(conn)
        rows: list[Any] = await fetch(conn, NUMBERS, {"last": LENGTH}, make)
        assert rows == [(number,) for number in range(1, LENGTH + 1)]


async def test_a_statement_that_was_discarded_is_prepared_again(alone: PostgresEventStore) -> None:
    for _ in range(3):
        assert len(await alone.read("s")) == LENGTH
        # What the driver itself does after some rollbacks.
        async with alone.connection() as conn:
            await conn.execute("DEALLOCATE ALL")


async def somebody_waits(url: str) -> bool:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        row = await (await conn.execute(WAITING)).fetchone()
        return bool(row and row[0])


async def test_a_read_leaves_the_next_answers_of_its_connection_whole(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "SMALLEST_POOL", 1)
    async with await PostgresEventStore.open(database_url, pool_size=1) as store:
        await store.append("s", events(3))
        for _ in range(3):  # what is not prepared yet takes another way
            assert len(await store.read("s")) == 3
            assert len((await store.page_behind(Gate(1, 1), 0, 10)).events) == 3
            assert len(await store.read("s")) == 3
            async with store.connection() as conn:
                async with conn.pipeline():
                    first = await conn.execute("SELECT generate_series(1, 3)")
                    second = await conn.execute("SELECT 5")
                assert (await first.fetchall(), await second.fetchall()) == ([(1,), (2,), (3,)], [(5,)])
