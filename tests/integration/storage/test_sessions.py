"""What a store's sessions look like to the server, and how stores share them."""

from __future__ import annotations

import asyncio
import itertools
from functools import partial

import psycopg
import pytest

from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.events import events
from tests.plugins.waiting import until

SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"


async def sessions(url: str, name: str) -> int:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        row = await (await conn.execute(SESSIONS, (name,))).fetchone()
        return int(row[0]) if row else 0


@pytest.mark.parity("T031", "T032")
async def test_sessions_bear_the_applications_name(database_url: str) -> None:
    async with await PostgresEventStore.open(database_url, application_name="shop") as store:
        await store.append("s", events(1))
        assert await sessions(database_url, "shop") >= 1
        assert await sessions(database_url, "headwater") == 0
    await until(lambda: none_of(database_url, "shop"))


async def none_of(url: str, name: str) -> bool:
    return await sessions(url, name) == 0


@pytest.mark.parity("T123", "T124", "T125", "T127")
async def test_stores_share_a_pool_and_keep_their_schemas_apart(database_url: str) -> None:
    async with await PostgresEventStore.open(database_url) as one:
        two = await PostgresEventStore.open(database_url, schema="two", migrate=True, pool=one.pool)
        assert two.pool is one.pool
        await asyncio.gather(one.append("s", events(2), 0), two.append("s", events(3), 0))
        assert (await one.head(), await two.head()) == (2, 3)
        await two.close()
        assert len(await one.read("s")) == 2


async def test_a_pool_of_one_is_enough(database_url: str) -> None:
    async with await PostgresEventStore.open(database_url, pool_size=1) as store:
        results = await asyncio.gather(*[store.append(f"s-{n}", events(1)) for n in range(20)])
        assert sorted(result.first_position for result in results) == list(range(1, 21))
        assert len(await store.read_all()) == 20


async def test_statements_are_not_kept_on_a_server_behind_a_pooler(database_url: str) -> None:
    async with await PostgresEventStore.open(database_url, session_url=database_url, pool_size=1) as store:
        for _ in range(8):
            await store.append("s", events(1))
            await store.read("s")
        async with store.connection() as conn:
            row = await (await conn.execute("SELECT count(*) FROM pg_prepared_statements")).fetchone()
        assert row == (0,)


async def test_closing_waits_for_the_appends_under_way(database_url: str) -> None:
    store = await PostgresEventStore.open(database_url)
    async with await psycopg.AsyncConnection.connect(database_url) as holder:
        await holder.execute('SELECT FROM "headwater"."head" FOR UPDATE')
        under_way = asyncio.create_task(store.append("s", events(1)))
        await asyncio.sleep(0)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        await holder.rollback()
    await closing
    assert (await under_way).first_position == 1


async def test_no_connection_is_lost_by_who_is_cancelled_while_another_waits_for_one(database_url: str) -> None:
    lost = []
    for turns_before, turns_after in itertools.product(range(5), range(5)):
        async with await PostgresEventStore.open(database_url, pool_size=1) as store:
            free = asyncio.Event()

            async def use(store: PostgresEventStore, until_free: asyncio.Event) -> None:
                async with store.connection():
                    await until_free.wait()

            user = asyncio.create_task(use(store, free))
            await until(partial(stands, store, "pool_available", 0))
            waiting = asyncio.create_task(use(store, free))
            await until(partial(stands, store, "requests_waiting", 1))
            waiting.cancel()
            await turns(turns_before)
            free.set()
            await turns(turns_after)
            user.cancel()
            await asyncio.wait([user, waiting])
            await turns(20)
            if not stands(store, "pool_available", 1):
                lost.append((turns_before, turns_after))
    assert not lost


def stands(store: PostgresEventStore, statistic: str, number: int) -> bool:
    return store.pool.get_stats().get(statistic, 0) == number


async def turns(number: int) -> None:
    """Let the others on the loop have so many turns."""
    for _ in range(number):
        await asyncio.sleep(0)
