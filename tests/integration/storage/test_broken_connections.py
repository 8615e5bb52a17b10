"""Connections that break while an append is under way: nothing is lost, nothing is written twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import psycopg
import pytest

from headwater.storage.errors import CommitUnknown, StoreClosed, StoreUnavailable, WrongExpectedVersion
from headwater.storage.model import ANY, NO_STREAM, Expected
from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.events import events
from tests.plugins.proxy import Cut, Proxy, proxy_before
from tests.plugins.waiting import until


@pytest.fixture
async def proxied(database_url: str) -> AsyncIterator[tuple[Proxy, PostgresEventStore]]:
    """A store behind a proxy, warm: the append's statement is prepared on its connections."""
    async with proxy_before(database_url) as (proxy, url), await PostgresEventStore.open(url, timeout=10) as store:
        await store.append("warm", events(1))
        yield proxy, store


@pytest.mark.parity("L34")
@pytest.mark.parametrize("expected", [0, ANY, NO_STREAM])
@pytest.mark.parametrize("cuts", [[Cut.BEFORE_REQUEST], [Cut.BEFORE_ANSWER], [Cut.BEFORE_ANSWER, Cut.BEFORE_REQUEST]])
async def test_a_connection_cut_at_commit_is_invisible(
    proxied: tuple[Proxy, PostgresEventStore], cuts: list[Cut], expected: Expected
) -> None:
    proxy, store = proxied
    proxy.cuts = list(cuts)
    result = await store.append("order-1", events(3), expected)
    assert proxy.made >= 1
    proxy.cuts.clear()
    assert (result.first_position, result.last_position, result.last_version) == (2, 4, 3)
    assert [event.version for event in await store.read("order-1")] == [1, 2, 3]
    assert await store.head() == 4


async def test_a_wrong_version_stays_one_after_a_cut(proxied: tuple[Proxy, PostgresEventStore]) -> None:
    proxy, store = proxied
    proxy.cuts = [Cut.BEFORE_ANSWER]
    with pytest.raises(WrongExpectedVersion):
        await store.append("warm", events(1), 0)
    assert await store.head() == 1


async def test_many_appends_over_cut_connections_are_written_once(
    proxied: tuple[Proxy, PostgresEventStore],
) -> None:
    proxy, store = proxied

    async def write(stream: str) -> None:
        for version in range(10):
            await store.append(stream, events(2), version * 2)
            if version in {3, 6}:
                proxy.cuts.append(Cut.BEFORE_ANSWER if version == 3 else Cut.BEFORE_REQUEST)

    await asyncio.gather(*[write(f"s-{n}") for n in range(6)])
    proxy.cuts.clear()
    assert proxy.made > 3
    assert await store.head() == 1 + 6 * 20
    assert [event.position async for event in store.stream_all()] == list(range(1, 122))


async def test_an_outcome_that_stays_unknown_is_said_to_be(database_url: str) -> None:
    async with proxy_before(database_url) as (proxy, url), await PostgresEventStore.open(url, timeout=1) as store:
        await store.append("warm", events(1))
        new = events(2)
        proxy.cuts, proxy.falls = [Cut.BEFORE_ANSWER], True
        with pytest.raises(CommitUnknown) as caught:
            await store.append("order-1", new)
        assert caught.value.retry_safe
        proxy.come_back()
        # The caller sends the same events again and learns what happened: they were written, once.
        result = await when_it_answers(lambda: store.append("order-1", new))
        assert (result.first_position, result.last_position) == (2, 3)
        assert await store.head() == 3


@pytest.mark.parity("T144")
async def test_a_server_that_is_away_is_unavailable(database_url: str) -> None:
    async with proxy_before(database_url) as (proxy, url), await PostgresEventStore.open(url, timeout=1) as store:
        await store.append("warm", events(1))
        proxy.go_down()
        with pytest.raises(StoreUnavailable):
            await store.read("warm")
        with pytest.raises(StoreUnavailable):
            await store.append("warm", events(1))
        proxy.come_back()
        assert len(await when_it_answers(lambda: store.read("warm"))) == 1


Value = TypeVar("Value")


async def when_it_answers(call: Callable[[], Awaitable[Value]]) -> Value:
    """Call until the pool has noticed that its connections are gone and has made new ones."""

    async def answer() -> list[Value]:
        try:
            return [await call()]
        except StoreUnavailable:
            return []

    [value] = await until(answer, what="waiting for the store to answer")
    return value


async def test_sessions_ended_by_an_administrator_lose_no_append(store: PostgresEventStore, database_url: str) -> None:
    ended = 0

    async def end_sessions() -> None:
        nonlocal ended
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
            for _ in range(3):
                cursor = await conn.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'headwater'"
                )
                row = await cursor.fetchone()
                assert row is not None
                ended += row[0]
                await asyncio.sleep(0)

    async def write(stream: str) -> None:
        for version in range(15):
            await store.append(stream, events(1), version)

    await asyncio.gather(*[write(f"s-{n}") for n in range(8)], end_sessions())
    assert ended
    assert [event.position async for event in store.stream_all()] == list(range(1, 121))


async def test_a_goodbye_is_enough_to_know_that_a_connection_ends(
    proxied: tuple[Proxy, PostgresEventStore], database_url: str
) -> None:
    proxy, store = proxied
    await asyncio.gather(*[store.read("warm") for _ in range(8)])
    proxy.holds_ends = True
    ended = await end_idle_sessions(database_url)
    await until(lambda: proxy.held == ended)
    assert [len(await store.read("warm")) for _ in range(8)] == [1] * 8


async def end_idle_sessions(database_url: str) -> int:
    """End the store's sessions and wait until the server has none of them; returns how many there were."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        ended: set[int] = set()

        async def all_ended() -> bool:
            cursor = await conn.execute(
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'headwater'"
            )
            left = {pid for pid, _ in await cursor.fetchall()}
            ended.update(left)
            return not left

        await until(all_ended)
    assert ended
    return len(ended)


async def test_no_call_meets_a_connection_that_the_server_has_ended(
    store: PostgresEventStore, database_url: str
) -> None:
    await asyncio.gather(*[store.append(f"s-{n}", events(1)) for n in range(8)])
    await asyncio.gather(*[store.read(f"s-{n}") for n in range(8)])
    await end_idle_sessions(database_url)
    assert [len(await store.read(f"s-{n}")) for n in range(8)] == [1] * 8
    assert await store.head() == 8


async def test_who_waits_for_a_server_that_is_away_gets_it_when_it_is_back(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with proxy_before(database_url) as (proxy, url), await PostgresEventStore.open(url, timeout=60) as store:
        await store.append("warm", events(1))
        proxy.go_down()
        with contextlib.suppress(StoreUnavailable):
            await store.read("warm")  # its connection broke under it
        reading = asyncio.gather(*[store.read("warm") for _ in range(6)])
        await until(lambda: "waits for the database" in caplog.text, what="waiting until the pool knocks")
        proxy.come_back()
        assert [len(read) for read in await reading] == [1] * 6


async def test_a_cancelled_append_leaves_its_neighbours_alone(store: PostgresEventStore, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as holder:
        await holder.execute('SELECT FROM "headwater"."head" FOR UPDATE')
        tasks = [asyncio.create_task(store.append(f"s-{n}", events(1))) for n in range(10)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[7].cancel()
        await asyncio.sleep(0)
        await holder.rollback()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, BaseException)] == [0, 7]
    assert [event.position async for event in store.stream_all()] == list(range(1, await store.head() + 1))
    assert await store.head() in {8, 9}


async def test_a_closed_store_says_so(database_url: str) -> None:
    store = await PostgresEventStore.open(database_url)
    await store.close()
    await store.close()
    for call in (store.append("s", events(1)), store.read("s"), store.head()):
        with pytest.raises(StoreClosed):
            await call
