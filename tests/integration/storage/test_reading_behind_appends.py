"""A read that waits in the server for an append that is under way, and never makes an append wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import psycopg
import pytest

from headwater.storage.errors import InvalidArgument, StoreClosed, StoreUnavailable
from headwater.storage.model import ALL, MAX_BIGINT, MAX_SESSION, NewEvent
from headwater.storage.opening import connect, hints_of
from headwater.storage.postgres.store import PostgresEventStore
from headwater.storage.redis import RedisHints
from headwater.subscriptions.fanout import SharedReader
from headwater.subscriptions.heads import Heads
from tests.plugins.waiting import until

LONG = 60.0
WAITING = """
FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresEventStore]:
    """An open store on a database of its own, with one event."""
    async with await PostgresEventStore.open(database_url) as opened:
        await opened.append("order-1", [NewEvent("Placed")])
        yield opened


@asynccontextmanager
async def appending(store: PostgresEventStore) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Hold an append open for the length of the block, then commit it."""
    async with (
        await psycopg.AsyncConnection.connect(store.options.url, autocommit=True) as conn,
        conn.transaction(),
    ):
        await store.append("order-2", [NewEvent("Placed")], conn=conn)
        yield conn


async def test_what_an_append_brings_is_read_as_soon_as_it_is_committed(store: PostgresEventStore) -> None:
    async with appending(store) as conn:
        reading = asyncio.create_task(store.page_behind(conn.info.backend_pid, 1, 10, wait=LONG))
        await until(lambda: _waits(store))
    page = await reading
    assert [(event.stream, event.position) for event in page.events] == [("order-2", 2)]
    assert page.read_to == 2


async def test_an_append_that_takes_too_long_is_left_to_the_next_hint(store: PostgresEventStore) -> None:
    async with appending(store) as conn:
        page = await store.page_behind(conn.info.backend_pid, 0, 10, wait=0.001)
        assert (list(page.events), page.read_to) == ([], 0)
        assert (await store.page_behind(conn.info.backend_pid, 0, 10, wait=0.001)).read_to == 0
    assert [event.position for event in await store.read_all()] == [1, 2]


async def test_a_session_that_appends_nothing_is_not_waited_for(store: PostgresEventStore) -> None:
    page = await store.page_behind(1, 0, 10, wait=LONG)
    assert [event.position for event in page.events] == [1]


async def test_an_append_does_not_wait_for_those_who_wait_for_it(store: PostgresEventStore) -> None:
    async with (
        await psycopg.AsyncConnection.connect(store.options.url, autocommit=True) as reader,
        await psycopg.AsyncConnection.connect(store.options.url, autocommit=True) as writer,
        reader.transaction(),
    ):
        await reader.execute(store.sql.wait_for_append, {"session": writer.info.backend_pid, "wait_ms": 1000})
        await store.append("order-2", [NewEvent("Placed")], conn=writer)
    assert await store.head() == 2


async def test_news_of_begun_appends_alone_bring_the_events(
    database_url: str, redis_url: str, store: PostgresEventStore
) -> None:
    async with connect(database_url, redis_url=redis_url) as writer:
        hints = hints_of(writer.options)
        assert hints is not None
        heads = Heads(store)  # nobody tells it of heads
        shared = SharedReader(store, heads, max_age=3600)
        hints.on_begun(lambda session: shared.look_ahead(partial(store.page_behind, session)))
        told: list[int] = []
        heads.listen(told.append)
        listening = asyncio.create_task(_follow(hints))
        await shared.read_page(ALL, 1, 10)
        await shared.read_page(ALL, 1, 10)

        async def appended_and_told() -> bool:
            await writer.append("order-2", [NewEvent("Placed")])
            return bool(told)

        await until(appended_and_told)
        assert (await shared.read_page(ALL, 1, 10)).events
        listening.cancel()
        await asyncio.wait([listening])
        await shared.close()
        await hints.close()


async def test_a_read_that_is_given_up_does_not_answer_the_next(store: PostgresEventStore) -> None:
    async with appending(store) as conn:
        given_up = asyncio.create_task(store.page_behind(conn.info.backend_pid, 1, 10, wait=LONG))
        await until(lambda: _waits(store))
        given_up.cancel()
        await asyncio.wait([given_up])
        assert not (await store.page_behind(conn.info.backend_pid, 1, 10, wait=0.001)).events
    page = await store.page_behind(1, 0, 10)
    assert [event.position for event in page.events] == [1, 2]


async def test_a_read_whose_connection_is_ended_fails_and_the_next_does_not(store: PostgresEventStore) -> None:
    async with appending(store) as conn:
        reading = asyncio.create_task(store.page_behind(conn.info.backend_pid, 1, 10, wait=LONG))
        await until(lambda: _waits(store))
        await conn.execute(f"SELECT pg_terminate_backend(pid) {WAITING}")
        with pytest.raises(StoreUnavailable):
            await reading
    assert [event.position for event in (await store.page_behind(1, 0, 10)).events] == [1, 2]


async def test_a_read_that_is_under_way_when_its_store_is_closed_leaves_no_connection(
    database_url: str, store: PostgresEventStore
) -> None:
    async with appending(store) as conn:
        async with await PostgresEventStore.open(database_url, application_name="closing") as closing:
            reading = asyncio.create_task(closing.page_behind(conn.info.backend_pid, 1, 10, wait=LONG))
            await until(lambda: _waits(store))
        with pytest.raises(StoreClosed):
            await closing.page_behind(1, 0, 10)
    assert [event.position for event in (await reading).events] == [2]

    async def gone() -> bool:
        async with store.connection() as own:
            left = await own.execute(
                "SELECT FROM pg_stat_activity WHERE application_name = 'closing' AND datname = current_database()"
            )
            return not await left.fetchall()

    await until(gone)


async def test_what_was_prepared_for_such_reads_and_is_discarded_is_prepared_again(database_url: str) -> None:
    async with await PostgresEventStore.open(database_url, pool_size=1) as store:
        await store.append("order-1", [NewEvent("Placed")])
        for _ in range(3):
            assert (await store.page_behind(1, 0, 10)).read_to == 1
            async with store.connection() as conn:
                await conn.execute("DEALLOCATE ALL")


async def _waits(store: PostgresEventStore) -> bool:
    async with store.connection() as own:
        return await (await own.execute(f"SELECT pid {WAITING}")).fetchone() is not None


async def _follow(hints: RedisHints) -> None:
    async for _ in hints.listen():
        pass


async def test_the_largest_numbers_find_nothing_and_larger_ones_are_refused(store: PostgresEventStore) -> None:
    assert (await store.page_behind(MAX_SESSION, MAX_BIGINT, MAX_BIGINT)).events == []
    for name, arguments in {"session": (MAX_SESSION + 1, 0, 1), "after": (1, MAX_BIGINT + 1, 1)}.items():
        with pytest.raises(InvalidArgument, match=name):
            await store.page_behind(*arguments)
