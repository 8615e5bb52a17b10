"""Connections that break while an append is under way: nothing is lost, nothing is written twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar

import psycopg
import pytest

from headwater.storage.errors import CommitUnknown, StoreClosed, StoreUnavailable, WrongExpectedVersion
from headwater.storage.model import ANY, NO_STREAM, Expected, Gate
from headwater.storage.postgres import lanes
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


async def test_an_outcome_that_stays_unknown_is_said_to_be(proxied: tuple[Proxy, PostgresEventStore]) -> None:
    proxy, store = proxied
    new = events(2)
    proxy.cuts, proxy.falls = [Cut.BEFORE_ANSWER], True
    with nobody_waits_long_for_a_connection(store), pytest.raises(CommitUnknown) as caught:
        await store.append("order-1", new)
    assert caught.value.retry_safe
    proxy.come_back()
    # The caller sends the same events again and learns what happened: they were written, once.
    result = await when_it_answers(lambda: store.append("order-1", new))
    assert (result.first_position, result.last_position) == (2, 3)
    assert await store.head() == 3


@pytest.mark.parity("T144")
async def test_a_server_that_is_away_is_unavailable(proxied: tuple[Proxy, PostgresEventStore]) -> None:
    proxy, store = proxied
    proxy.go_down()
    with nobody_waits_long_for_a_connection(store):
        with pytest.raises(StoreUnavailable):
            await store.read("warm")
        with pytest.raises(StoreUnavailable):
            await store.append("warm", events(1))
    proxy.come_back()
    assert len(await when_it_answers(lambda: store.read("warm"))) == 1


@contextlib.contextmanager
def nobody_waits_long_for_a_connection(store: PostgresEventStore) -> Iterator[None]:
    """Let the pool give up soon for the length of the block; what needs the server's answer has its usual time."""
    usual, store.pool.timeout = store.pool.timeout, 0.5
    try:
        yield
    finally:
        store.pool.timeout = usual


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
    ended: set[int] = set()

    async def end_sessions() -> None:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
            for _ in range(3):
                ended.update(await told_to_end(conn))
                await asyncio.sleep(0)

    async def none_is_left() -> bool:
        # One that has yet to hear of its end would take the statement of the next reader with it.
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
            cursor = await conn.execute("SELECT FROM pg_stat_activity WHERE pid = ANY(%s)", [list(ended)])
            return await cursor.fetchone() is None

    async def write(stream: str) -> None:
        for version in range(15):
            await store.append(stream, events(1), version)

    await asyncio.gather(*[write(f"s-{n}") for n in range(8)], end_sessions())
    assert ended
    await until(none_is_left)
    assert [event.position async for event in store.stream_all()] == list(range(1, 121))


@pytest.fixture
async def of_two(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Proxy, PostgresEventStore]]:
    """A store behind a proxy that has two connections, of which appends keep one; with one event."""
    monkeypatch.setattr(lanes, "SMALLEST_POOL", 1)
    async with (
        proxy_before(database_url) as (proxy, url),
        await PostgresEventStore.open(url, timeout=10, pool_size=2) as store,
    ):
        await store.append("warm", events(1))
        yield proxy, store


async def sessions(store: PostgresEventStore) -> set[int]:
    """Return the server's numbers of both connections."""
    async with store.connection() as one, store.connection() as two:
        return {one.info.backend_pid, two.info.backend_pid}


async def hear_goodbye(proxy: Proxy, database_url: str, pids: set[int]) -> None:
    """End sessions; returns when all that they said is there, though their connections are not closed."""
    proxy.holds_ends, proxy.held = True, 0
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        await conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = ANY(%s)", [list(pids)])
    await until(lambda: proxy.held == len(pids))
    proxy.holds_ends = False


async def test_a_goodbye_is_enough_to_know_that_a_connection_ends(
    of_two: tuple[Proxy, PostgresEventStore], database_url: str
) -> None:
    proxy, store = of_two
    await hear_goodbye(proxy, database_url, await sessions(store))
    assert [len(await store.read("warm")) for _ in range(8)] == [1] * 8


async def test_a_goodbye_that_was_read_together_with_an_answer_is_heard_all_the_same(
    of_two: tuple[Proxy, PostgresEventStore], database_url: str
) -> None:
    proxy, store = of_two
    async with store.connection() as one, store.connection() as two:
        await hear_goodbye(proxy, database_url, {one.info.backend_pid, two.info.backend_pid})
        for conn in (one, two):
            conn.pgconn.consume_input()  # as happens when both come in one piece
    assert [len(await store.read("warm")) for _ in range(8)] == [1] * 8


@pytest.mark.parametrize("then", ["append", "read behind an append", "read"])
async def test_a_goodbye_to_a_connection_that_appends_keep_is_heard_as_well(
    of_two: tuple[Proxy, PostgresEventStore],
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    then: str,
) -> None:
    proxy, store = of_two
    pids = await sessions(store)

    async def appended_and_kept() -> bool:
        await store.append("warm", events(1))
        return "1 free" in repr(store._lanes)

    await until(appended_and_kept)  # at first it is known that another waited for the connection
    monkeypatch.setattr(lanes.Lane, "worth_keeping", lambda _lane, _now: then != "read" or proxy.held < len(pids))
    await hear_goodbye(proxy, database_url, pids)
    match then:
        case "append":
            await store.append("warm", events(1))
            assert "sending the same events again" not in caplog.text
        case "read behind an append":
            assert (await store.page_behind(Gate(1, 1), 0, 10)).events
        case "read":
            await until(lambda: "0 free" in repr(store._lanes))
            for _ in range(8):
                assert await store.read("warm")


async def told_to_end(conn: psycopg.AsyncConnection) -> set[int]:
    """Tell the store's sessions to end; returns which there were. Each ends when it comes to it."""
    cursor = await conn.execute(
        "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'headwater'"
    )
    return {pid for pid, _ in await cursor.fetchall()}


async def end_idle_sessions(database_url: str) -> None:
    """End the store's sessions and wait until the server has none of them."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:

        async def none_is_left() -> bool:
            return not await told_to_end(conn)

        assert await told_to_end(conn)
        await until(none_is_left)


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
        with nobody_waits_long_for_a_connection(store), contextlib.suppress(StoreUnavailable):
            await store.read("warm")  # its connection broke under it, or there is none
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
