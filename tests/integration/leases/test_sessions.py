"""One lease session: what it refuses, how it waits for nobody, and what it shows of itself."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Any, Final

import psycopg
import pytest

from headwater.storage.errors import ConfigurationError, PoolerRefused, SchemaMissing, StoreUnavailable
from headwater.storage.leases import News, PartitionKey
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.commands import Commands
from headwater.storage.postgres.leases import LeaseSession, Presence
from headwater.storage.postgres.placement import PostgresPlacement
from headwater.storage.postgres.registry import Registry
from headwater.storage.postgres.schema import migrate
from headwater.storage.postgres.store import PostgresEventStore
from tests.integration.leases.programs import MANY_TRIES
from tests.plugins.proxies import transaction_pooler, wire
from tests.plugins.waiting import DEADLINE, until, wait_until

OpenSession = Callable[..., Any]

LONG: Final = timedelta(seconds=30)
"""A lease that nobody loses by being kept waiting: for tests of anything but its length."""


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresEventStore]:
    """An open store on a database of its own."""
    async with await PostgresEventStore.open(database_url) as opened:
        yield opened


@pytest.fixture
async def keys(store: PostgresEventStore) -> list[PartitionKey]:
    """Three partitions of a registered subscription."""
    registry = Registry(store.pool, store.sql, store)
    await registry.register("orders", "package.module:handler", {}, partitions=3)
    return [state.key for state in await registry.states("orders")]


@pytest.fixture
async def open_session(database_url: str) -> AsyncIterator[OpenSession]:
    """Opens sessions that are closed at the end of the test."""
    async with AsyncExitStack() as stack:

        async def opened(
            host: str = "host", url: str = database_url, lease: timedelta = LONG, **settings: Any
        ) -> LeaseSession:
            options = StoreOptions(url=url, **settings.pop("options", {}))
            session = LeaseSession(options, host=host, lease=lease, **settings)
            await session.open()
            stack.push_async_callback(session.close)
            return session

        yield opened


@pytest.mark.parametrize("sessions", [1, 2, 3])
async def test_a_transaction_mode_pooler_is_refused(database_url: str, sessions: int) -> None:
    with transaction_pooler(database_url, sessions) as pooler:
        session = LeaseSession(StoreOptions(url=f"{pooler.url}?sslmode=disable&gssencmode=disable"), host="host")
        with pytest.raises(PoolerRefused):
            await session.open()


async def test_a_store_that_was_not_told_of_its_pooler_says_what_to_do(database_url: str) -> None:
    with transaction_pooler(database_url, 1) as pooler, pytest.raises(PoolerRefused, match="session_url"):
        async with await PostgresEventStore.open(f"{pooler.url}?sslmode=disable&gssencmode=disable") as store:
            await asyncio.gather(*[store.read("s-1") for _ in range(4)])


async def test_leases_go_past_the_pooler_when_there_is_a_direct_way(
    database_url: str, open_session: OpenSession, keys: list[PartitionKey]
) -> None:
    with transaction_pooler(database_url, 1) as pooler:
        session = await open_session(url=pooler.url, options={"session_url": database_url})
        assert len(await session.claim(keys)) == 3


async def test_a_proxy_that_keeps_sessions_is_welcome(
    database_url: str, open_session: OpenSession, keys: list[PartitionKey]
) -> None:
    with wire(database_url) as network:
        session = await open_session(url=network.url)
        assert len(await session.claim(keys)) == 3
        await session.close()


@pytest.mark.parametrize("lease", [timedelta(milliseconds=999), timedelta(seconds=61)])
def test_a_lease_that_is_too_short_or_too_long_is_refused(lease: timedelta) -> None:
    with pytest.raises(ConfigurationError):
        LeaseSession(StoreOptions(url="postgresql://localhost/x"), host="host", lease=lease)


def test_a_heartbeat_that_leaves_no_room_for_a_lost_one_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        LeaseSession(StoreOptions(url="postgresql://localhost/x"), host="host", heartbeat=timedelta(seconds=2))


async def test_a_database_that_does_not_answer_is_told_at_once() -> None:
    session = LeaseSession(StoreOptions(url="postgresql://127.0.0.1:1/none"), host="host")
    with pytest.raises(StoreUnavailable):
        await session.open()


async def test_missing_tables_are_told_at_once(empty_database_url: str) -> None:
    session = LeaseSession(StoreOptions(url=empty_database_url), host="host", presence=Presence(node="n"))
    with pytest.raises(SchemaMissing):
        await session.open()


async def test_an_event_loop_that_does_not_turn_holds_nothing(
    open_session: OpenSession, keys: list[PartitionKey], caplog: pytest.LogCaptureFixture
) -> None:
    """The others on the loop could do nothing with what they hold; it goes to whoever can."""
    session = await open_session(lease=timedelta(seconds=3), stall=timedelta(seconds=3))
    (grant, *_) = await session.claim(keys)
    lost: list[int] = []
    session.on_lost(lost.append)
    wait_until(lambda: not session.connected, what="waiting, without await, until the session is given up")
    assert session.lost(grant)
    assert "test_an_event_loop_that_does_not_turn_holds_nothing" in caplog.text
    other = await open_session("other")
    assert len(await other.claim(keys)) == 3
    await until(lambda: session.connected)
    assert lost[0] == grant.session
    assert session.session > grant.session


async def test_a_program_without_a_bound_may_keep_its_loop(open_session: OpenSession, keys: list[PartitionKey]) -> None:
    session = await open_session(heartbeat=timedelta(milliseconds=100))
    grants = await session.claim(keys)
    heard = session.valid_until
    wait_until(lambda: session.valid_until > heard + 4, what="waiting, without await, for a while")
    assert not any(session.lost(grant) for grant in grants)


async def test_a_stall_shorter_than_the_lease_is_refused(open_session: OpenSession) -> None:
    with pytest.raises(ConfigurationError, match="stall"):
        await open_session(lease=timedelta(seconds=5), stall=timedelta(seconds=4))


async def test_a_closed_session_grants_nothing(open_session: OpenSession, keys: list[PartitionKey]) -> None:
    session = await open_session()
    (grant, *_) = await session.claim(keys)
    await session.close()
    await session.close()
    assert session.lost(grant)
    with pytest.raises(StoreUnavailable):
        await session.claim(keys)


@pytest.fixture
def complaints(monkeypatch: pytest.MonkeyPatch) -> list[threading.ExceptHookArgs]:
    """What threads end with."""
    found: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", found.append)
    return found


def test_a_session_that_a_program_forgot_to_close_ends_quietly_after_its_loop(
    database_url: str, complaints: list[threading.ExceptHookArgs]
) -> None:
    async def forget() -> threading.Thread:
        before = set(threading.enumerate())
        session = LeaseSession(StoreOptions(url=database_url), host="host", lease=LONG)
        await session.open()
        session.on_news(lambda news: None)
        (of_its_own,) = (t for t in set(threading.enumerate()) - before if t.name == "headwater-leases")
        return of_its_own

    left_behind = asyncio.run(forget())
    with psycopg.connect(database_url, autocommit=True) as conn:

        def ended() -> bool:
            conn.execute("SELECT pg_notify('headwater_news', %s)", [News.RELEASED.value])
            return not left_behind.is_alive()

        wait_until(ended)
        wait_until(
            lambda: (
                conn.execute(
                    "SELECT FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name LIKE '%leases of host'"
                ).fetchone()
                is None
            ),
            what="waiting until nothing is held any more",
        )
    assert complaints == []


async def test_an_opening_that_is_cancelled_in_the_moment_of_its_success_ends_quietly(
    database_url: str, complaints: list[threading.ExceptHookArgs]
) -> None:
    loop = asyncio.get_running_loop()

    class CancelledLate(Future[None]):
        """Is cancelled between the look whether it is done and what the thread does then."""

        def done(self) -> bool:
            answer = super().done()
            if threading.current_thread().name != "headwater-leases":
                return answer
            passed_on = threading.Event()

            def cancel() -> None:
                opening.cancel()
                loop.call_soon(passed_on.set)  # after what the cancellation has called

            loop.call_soon_threadsafe(cancel)
            passed_on.wait()
            return answer

    session = LeaseSession(StoreOptions(url=database_url), host="host")
    session._opened = CancelledLate()
    opening = asyncio.create_task(session.open())
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert complaints == []


@pytest.mark.parity("T006")
async def test_the_same_partition_number_in_two_schemas_is_two_locks(
    database_url: str, open_session: OpenSession, keys: list[PartitionKey]
) -> None:
    other = StoreOptions(url=database_url, schema="other")
    await migrate(other)
    async with await PostgresEventStore.open(options=other) as store:
        await Registry(store.pool, store.sql, store).register("orders", "m:h", {}, partitions=3)
        states = await Registry(store.pool, store.sql, store).states()
    assert [state.key for state in states] == keys
    here = await open_session()
    there = await open_session("other host", options={"schema": "other"})
    assert len(await here.claim(keys)) == len(await there.claim(keys)) == 3


async def test_a_partition_whose_row_is_locked_is_left_for_later_and_nobody_waits(
    database_url: str, open_session: OpenSession, keys: list[PartitionKey]
) -> None:
    one, two = await open_session("one"), await open_session("two")
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        await conn.execute("SELECT FROM headwater.partitions WHERE lock_id = %s FOR UPDATE", [keys[1].lock_id])
        assert {grant.key for grant in await one.claim(keys)} == {keys[0], keys[2]}
    # The lock of the one that was left is free for anybody.
    assert {grant.key for grant in await two.claim(keys)} == {keys[1]}


async def test_a_claim_that_fails_keeps_no_lock(
    database_url: str, open_session: OpenSession, keys: list[PartitionKey]
) -> None:
    one, two = await open_session("one"), await open_session("two")
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        # What a full disk would do: the locks are taken, then the update fails.
        await conn.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$"
        )
        await conn.execute(
            "CREATE TRIGGER refuse BEFORE UPDATE ON headwater.partitions FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        with pytest.raises(StoreUnavailable):
            await one.claim(keys)
        await conn.execute("DROP TRIGGER refuse ON headwater.partitions")
    assert len(await two.claim(keys)) == 3
    assert await one.claim(keys) == []


async def test_what_a_cancelled_claim_obtained_is_given_back(
    open_session: OpenSession, keys: list[PartitionKey]
) -> None:
    one, two = await open_session("one"), await open_session("two")
    claim = asyncio.create_task(one.claim(keys))
    await asyncio.sleep(0)
    claim.cancel()
    await asyncio.wait([claim])
    held: set[PartitionKey] = set()

    async def all_obtained() -> bool:
        held.update(grant.key for grant in await two.claim([key for key in keys if key not in held]))
        return len(held) == 3

    await until(all_obtained)


@pytest.mark.parity("T089")
async def test_those_who_asked_are_told_which_session_was_lost(
    database_url: str, open_session: OpenSession, keys: list[PartitionKey]
) -> None:
    session = await open_session()
    (grant, *_) = await session.claim(keys)
    lost: list[int] = []
    session.on_lost(lost.append)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        await conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE '%leases of host'"
        )
    await until(lambda: lost == [grant.session])
    assert session.lost(grant)


async def test_a_session_that_is_opened_again_says_so_at_once(database_url: str, open_session: OpenSession) -> None:
    session = await open_session()
    heard: list[News] = []
    session.on_news(heard.append)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        await conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE '%leases of host'"
        )
    await until(lambda: heard == [News.CONNECTED])
    assert session.connected


async def test_a_handler_that_computes_for_longer_than_the_lease_does_not_lose_it(
    open_session: OpenSession, keys: list[PartitionKey]
) -> None:
    session, other = await open_session(lease=timedelta(seconds=2)), await open_session("other")

    async def is_held_through() -> bool:
        with suppress(StoreUnavailable):
            grants = await session.claim(keys)
            begun = time.monotonic()
            while time.monotonic() - begun < 4:
                sum(range(10_000))  # neither the event loop nor, for long, the interpreter's lock is given away
            lost = any(session.lost(grant) for grant in grants)
            taken = await other.claim(keys)
            await other.release(taken)
            return len(grants) == 3 and not lost and not taken
        return False

    # Again when a process, or the server, stood still: a handler that keeps the heartbeat waiting does so each time.
    await until(is_held_through, deadline=MANY_TRIES)


async def test_a_host_is_alive_while_its_session_lives(store: PostgresEventStore, open_session: OpenSession) -> None:
    placement = PostgresPlacement(store.pool, store.sql)
    session = await open_session("one", presence=Presence(node="here", facts={"resources": {"CPU": 2}}))
    (host,) = await placement.hosts()
    assert (host.host, host.node, host.facts) == ("one", "here", {"resources": {"CPU": 2}})
    await session.close()

    async def gone() -> bool:
        return await placement.hosts() == []

    await until(gone)


async def test_a_host_with_the_name_of_a_living_one_is_refused(open_session: OpenSession) -> None:
    await open_session("one", presence=Presence(node="here"))

    async def is_refused() -> bool:
        try:
            await open_session("one", presence=Presence(node="there"), lease=timedelta(seconds=1))
        except StoreUnavailable:  # the server did not answer for the length of this lease
            return False
        except ConfigurationError:
            return True
        raise AssertionError("it was let in")

    await until(is_refused, deadline=MANY_TRIES)


async def test_only_one_supervises_and_each_next_one_has_a_higher_generation(open_session: OpenSession) -> None:
    one, two = await open_session("one"), await open_session("two")
    first = await one.supervise()
    assert first is not None
    assert await two.supervise() is None
    assert await one.supervise() == first
    await one.close()

    async def succeeded() -> int | None:
        generation: int | None = await two.supervise()
        return generation

    assert await until(succeeded) == first + 1


async def test_a_session_is_told_what_others_write_for_it(
    store: PostgresEventStore, open_session: OpenSession, keys: list[PartitionKey]
) -> None:
    listener, other = await open_session("one"), await open_session("two")
    heard: list[News] = []
    listener.on_news(heard.append)
    placement = PostgresPlacement(store.pool, store.sql)
    generation = await other.supervise()

    async def told(news: News) -> None:
        await until(lambda: heard == [news], what=f"{news} is heard, once")
        heard.clear()

    await Commands(store.pool, store.sql).issue("orders", "rewind", {"to": 0}, issued_by="somebody")
    await told(News.WANTED)
    await Registry(store.pool, store.sql, store).set_wanted("orders", "paused", issued_by="somebody")
    await told(News.WANTED)
    await placement.assign(generation, [(key.lock_id, "one", "two") for key in keys])
    await told(News.ASSIGNED)
    await placement.ready("two", keys)
    await told(News.READY)
    await other.release(await other.claim(keys))
    await told(News.RELEASED)


async def test_news_that_keep_coming_do_not_put_the_heartbeat_off(
    store: PostgresEventStore, open_session: OpenSession
) -> None:
    session = await open_session("one", heartbeat=timedelta(milliseconds=150))
    first = session.valid_until

    async def renewed_twice() -> bool:
        async with store.connection() as conn:
            await conn.execute("SELECT pg_notify('headwater_news', 'anything')")
        return bool(session.valid_until > first + 0.25)

    await until(renewed_twice)
    assert session.session == 1


async def test_requests_that_need_no_statement_do_not_put_the_heartbeat_off(
    store: PostgresEventStore, open_session: OpenSession
) -> None:
    session = await open_session("one", heartbeat=timedelta(milliseconds=150))
    await session.supervise()

    async def last_heard() -> Any:
        async with store.connection() as conn:
            cursor = await conn.execute(
                "SELECT backend_start, state_change FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE '%leases of one'"
            )
            return await cursor.fetchone()

    before = await last_heard()

    async def heard_again() -> bool:
        await session.supervise()  # known already: the server is not asked
        return bool(await last_heard() != before)

    await until(heard_again)
    assert (await last_heard())[0] == before[0], "the server ended the session"
    assert session.connected


async def test_requests_that_keep_a_session_alive_do_not_put_its_looks_at_the_others_off(
    store: PostgresEventStore, open_session: OpenSession, keys: list[PartitionKey]
) -> None:
    session = await open_session("one", lease=timedelta(seconds=1))
    looks: dict[int, set[object]] = defaultdict(set)
    """By the server's session: each one looks once when it begins, and a second time only if that is not put off."""

    async with asyncio.timeout(DEADLINE):
        while max(map(len, looks.values()), default=0) < 2:
            with suppress(StoreUnavailable):  # one that was lost: the next one is to show it
                await session.claim(keys)
            for _ in range(10):  # what comes between two claims is seen, and no heartbeat is due before the next one
                async with store.connection() as conn:
                    cursor = await conn.execute(
                        "SELECT pid, state_change FROM pg_stat_activity WHERE datname = current_database()"
                        " AND application_name LIKE '%leases of one' AND query LIKE '%pg_stat_get_activity%'"
                    )
                    for backend, looked_at in await cursor.fetchall():
                        looks[backend].add(looked_at)
