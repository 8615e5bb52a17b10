"""The connections that appends keep: given back when others want them, replaced when they break."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import AsyncExitStack

import psycopg
import pytest

from headwater.storage.errors import CommitUnknown
from headwater.storage.model import NewEvent
from headwater.storage.postgres.connect import StoreConnection
from headwater.storage.postgres.lanes import SMALLEST_POOL, Lane, Lanes
from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.events import events
from tests.plugins.proxy import Cut, proxy_before
from tests.plugins.waiting import until

LOCKED = 'SELECT FROM "headwater"."head" FOR UPDATE'
ENDED = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'headwater'
"""


async def test_who_waits_for_the_pool_gets_what_appends_keep(database_url: str) -> None:
    async with await PostgresEventStore.open(database_url, pool_size=SMALLEST_POOL) as store:
        done = asyncio.Event()

        async def write(stream: str) -> None:
            while not done.is_set():
                await store.append(stream, events(1))

        writers = [asyncio.create_task(write(f"s-{n}")) for n in range(40)]
        for _ in range(3):
            async with AsyncExitStack() as stack:
                for _ in range(SMALLEST_POOL):
                    await stack.enter_async_context(store.connection())
        done.set()
        await asyncio.gather(*writers)
        assert [event.position async for event in store.stream_all()] == list(range(1, await store.head() + 1))


async def test_what_appends_kept_is_the_pools_again(database_url: str) -> None:
    async with await PostgresEventStore.open(database_url, pool_size=SMALLEST_POOL) as store:
        await store.append("s", events(1))
        await until(lambda: store.pool.get_stats()["pool_available"] == store.pool.get_stats()["pool_size"])
        await store.append("s", events(1))
    assert store.pool.closed


async def test_a_kept_connection_that_ended_meanwhile_is_replaced(database_url: str) -> None:
    async with (
        await PostgresEventStore.open(database_url) as store,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as watch,
    ):
        for version in range(3):
            await store.append("s", events(1), version)
            await watch.execute(ENDED)
        assert (await store.append("s", events(1), 3)).last_position == 4


async def test_a_call_that_was_given_up_does_not_answer_the_next(database_url: str) -> None:
    async with (
        await PostgresEventStore.open(database_url) as store,
        await psycopg.AsyncConnection.connect(database_url) as holder,
    ):
        await store.append("a", events(1))
        await holder.execute(LOCKED)
        given_up = asyncio.create_task(store.append("a", events(1)))
        await until(lambda: somebody_waits(store))
        given_up.cancel()
        await asyncio.wait([given_up])
        await holder.rollback()
        result = await store.append("b", events(1))
        assert (result.stream, result.last_version) == ("b", 1)
        assert [event.version for event in await store.read("b")] == [1]


async def somebody_waits(store: PostgresEventStore) -> bool:
    async with store.connection() as conn:
        cursor = await conn.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return await cursor.fetchone() is not None


@pytest.mark.parametrize("number", [1, 2])
async def test_a_call_that_takes_too_long_ends(database_url: str, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    async with (
        await PostgresEventStore.open(database_url) as store,
        await psycopg.AsyncConnection.connect(database_url) as holder,
    ):
        await store.append("s", events(1))
        await holder.execute(LOCKED)
        new = events(number)
        hasty = Lanes(store.pool, timeout=0.5, prepare=True)
        with monkeypatch.context() as patch:
            patch.setattr(store, "_lanes", hasty)
            with pytest.raises(CommitUnknown):
                await store.append("s", new)
        await hasty.close()
        await holder.rollback()
        # It may have been written when the lock went: the same events again are that or this.
        await store.append("s", new)
        assert len(await store.read("s")) == 1 + number


async def test_what_was_prepared_and_is_discarded_is_prepared_again(database_url: str) -> None:
    async with await PostgresEventStore.open(database_url, pool_size=2) as store:
        for _ in range(3):
            for number in (1, 2):
                await store.append("s", events(number))
            # What the driver itself does after some rollbacks.
            async with store.connection() as one, store.connection() as two:
                await one.execute("DEALLOCATE ALL")
                await two.execute("DEALLOCATE ALL")
        assert await store.head() == 9


@pytest.mark.parametrize("cut", list(Cut))
async def test_one_event_is_written_once_over_a_cut_connection(database_url: str, cut: Cut) -> None:
    async with proxy_before(database_url) as (proxy, url), await PostgresEventStore.open(url, timeout=10) as store:
        await store.append("s", events(1))
        proxy.cuts = [cut]
        assert (await store.append("s", events(1))).last_position == 2
        assert proxy.made == 1
        assert await store.head() == 2


async def test_an_event_larger_than_any_buffer_goes_through(store: PostgresEventStore) -> None:
    note = "x" * 20_000_000
    await store.append("s", [NewEvent("Noted", {"note": note})])
    [event] = await store.read("s")
    assert event.data["note"] == note


async def test_a_broken_lane_leaves_the_next_owner_of_its_socket_number_alone(database_url: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with await StoreConnection.connect(database_url, autocommit=True) as conn:
            lane = Lane(conn, timeout=10, prepare=True)
            number = conn.fileno()
            with pytest.raises(psycopg.OperationalError):
                await lane.row(b"SELECT pg_terminate_backend(%s::bigint::integer)", [lane.session])
        os.dup2(ours.fileno(), number)
        heard = asyncio.Event()
        asyncio.get_running_loop().add_reader(number, heard.set)
        lane.leave()
        theirs.send(b"x")
        await asyncio.wait_for(heard.wait(), 10)
        asyncio.get_running_loop().remove_reader(number)
        os.close(number)
