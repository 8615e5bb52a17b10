"""A read that waits in the server for an append that is yet to come, and never makes an append wait."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import psycopg
import pytest

from headwater.storage.errors import DuplicateEvent, InvalidArgument, StoreClosed, StoreUnavailable
from headwater.storage.model import ALL, ANY, MAX_BIGINT, MAX_GATE, MAX_SESSION, EventPage, Gate, NewEvent, StreamAppend
from headwater.storage.opening import connect, hints_of
from headwater.storage.postgres import lanes, reading
from headwater.storage.postgres.lanes import Gates, Lanes
from headwater.storage.postgres.store import PostgresEventStore
from headwater.subscriptions.fanout import SharedReader
from headwater.subscriptions.heads import Heads
from tests.plugins.proxies import wire
from tests.plugins.waiting import until

LONG = 9.0
"""Longer than a test may take, and less than the test's time limit."""
NOBODY = Gate(1, 1)
LOCKED = 'SELECT FROM "headwater"."head" FOR UPDATE'
ENDLESS = b"SELECT pg_sleep(3600)"
WAITING = """
FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
SHUT = """
SELECT count(*) FROM pg_locks
WHERE classid = '"headwater"."streams"'::regclass AND objsubid = 2 AND mode = 'ExclusiveLock' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Writer:
    """A store whose appends pass gates, and the gate that is shut."""

    def __init__(self) -> None:
        self.store: PostgresEventStore
        self.told: list[tuple[int, Gate | None]] = []

    async def announce(self, head: int, gate: Gate | None) -> None:
        """Take down a hint."""
        self.told.append((head, gate))

    async def append(self, stream: str = "order-1", *, events: int = 1) -> None:
        """Append, and see it announced."""
        result = await self.store.append(stream, [NewEvent("Placed") for _ in range(events)])
        await until(lambda: bool(self.told) and self.told[-1][0] == result.last_position)

    @property
    def gate(self) -> Gate:
        """The gate that came with the last hint."""
        gate = self.told[-1][1]
        assert gate is not None
        return gate


@pytest.fixture(autouse=True)
def never_too_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every lone append pass a gate, however quickly it follows another, keep gates shut, and wait for its end."""
    monkeypatch.setattr(lanes, "QUIET", 0.0)
    monkeypatch.setattr(lanes, "KEPT_SHUT", 3600.0)
    monkeypatch.setattr(reading, "LONGEST_APPEND", LONG)


@pytest.fixture
async def writer(database_url: str) -> AsyncIterator[Writer]:
    """A writer in a process of its own, so to speak, with one event."""
    writer = Writer()
    writer.store = await PostgresEventStore.open(database_url, announce=writer.announce, application_name="writer")
    async with writer.store:
        await writer.append()
        yield writer


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresEventStore]:
    """The same store, opened by a reader."""
    async with await PostgresEventStore.open(database_url, timeout=2 * LONG) as opened:
        yield opened


@asynccontextmanager
async def held_up(store: PostgresEventStore) -> AsyncIterator[None]:
    """Let no append end for the length of the block."""
    async with (
        await psycopg.AsyncConnection.connect(store.options.url, autocommit=True) as conn,
        conn.transaction(),
    ):
        await conn.execute(LOCKED)
        yield


@pytest.mark.parametrize("events", [1, 3])
async def test_what_an_append_brings_is_read_as_soon_as_it_is_committed(
    store: PostgresEventStore, writer: Writer, events: int
) -> None:
    read = asyncio.create_task(store.page_behind(writer.gate, 1, 10, wait=LONG))
    await until(lambda: _waits(store))
    await writer.append("order-2", events=events)
    page = await read
    assert [event.stream for event in page.events] == ["order-2"] * events
    assert page.read_to == 1 + events


async def test_whoever_is_let_through_waits_for_the_end_of_the_append(
    store: PostgresEventStore, writer: Writer
) -> None:
    read = asyncio.create_task(store.page_behind(writer.gate, 1, 10, wait=LONG))
    await until(lambda: _waits(store))
    async with held_up(store):
        appending = asyncio.create_task(writer.append("order-2"))
        await until(lambda: _waits(store, "head"))
    await appending
    assert [event.position for event in (await read).events] == [2]


async def test_an_append_that_takes_too_long_is_left_to_the_next_hint(
    store: PostgresEventStore, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LONGEST_APPEND", 0.001)
    async with held_up(store):
        read = asyncio.create_task(store.page_behind(writer.gate, 0, 10, wait=LONG))
        await until(lambda: _waits(store))
        appending = asyncio.create_task(writer.append("order-2"))
        assert await read == EventPage((), 0, 0)
    await appending
    assert [event.position for event in await store.read_all()] == [1, 2]


async def test_an_append_that_does_not_come_is_not_waited_for_much_longer(
    store: PostgresEventStore, writer: Writer
) -> None:
    assert await store.page_behind(writer.gate, 0, 10, wait=0.001) == EventPage((), 0, 0)
    assert [event.position for event in (await store.page_behind(NOBODY, 0, 10)).events] == [1]


async def test_a_gate_that_was_opened_before_is_passed_at_once(store: PostgresEventStore, writer: Writer) -> None:
    gates = [writer.gate]
    for _ in range(3):
        await writer.append()
        gates.append(writer.gate)
    assert len(set(gates)) == 4
    for gate in (*gates[:-1], NOBODY):
        assert len((await store.page_behind(gate, 0, 10, wait=LONG)).events) == 4


async def test_an_append_does_not_wait_for_those_who_wait_for_it(store: PostgresEventStore, writer: Writer) -> None:
    async with (
        await psycopg.AsyncConnection.connect(store.options.url, autocommit=True) as reader,
        reader.transaction(),
    ):
        await writer.append()  # opens the first gate
        session, number = writer.told[0][1] or NOBODY
        waits = {"session": session, "gate": number, "begin_ms": 1000, "end_ms": 1000}
        await reader.execute(store.sql.wait_for_append, waits)
        for _ in range(3):
            await writer.append()
    assert await store.head() == 5


async def test_a_refused_append_leaves_nobody_waiting(store: PostgresEventStore, writer: Writer) -> None:
    event = NewEvent("Placed", id=uuid.uuid4())
    await writer.append()
    await writer.store.append("order-3", [event])
    gate = await _last_gate(writer, 3)
    with pytest.raises(DuplicateEvent):
        await writer.store.append("order-4", [event], ANY)
    await store.page_behind(gate, 0, 10, wait=LONG)
    assert await _shut(store) <= 1
    await writer.append()
    assert await _shut(store) == 1


async def test_gates_are_open_when_the_pool_has_its_connections_again(
    store: PostgresEventStore, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await _shut(store) == 1
    read = asyncio.create_task(store.page_behind(writer.gate, 1, 10, wait=LONG))
    await until(lambda: _waits(store))
    monkeypatch.setattr(lanes, "KEPT_SHUT", 0.0)
    assert ((await read).events, (await read).read_to) == ([], 1)
    stats = writer.store.pool.get_stats
    await until(lambda: stats()["pool_available"] == stats()["pool_size"])
    assert await _shut(store) == 0


async def test_a_gate_is_not_kept_shut_by_calls_that_pass_none(
    store: PostgresEventStore, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def opened_between_appends() -> bool:
        await writer.store.append_to_many([StreamAppend(name, [NewEvent("Placed")]) for name in ("a-1", "a-2")])
        return await _none_shut(store)

    await writer.append()
    assert await _shut(store) == 1
    monkeypatch.setattr(lanes, "KEPT_SHUT", 0.2)
    await until(opened_between_appends)


async def test_a_closed_store_leaves_no_gate_shut(store: PostgresEventStore, writer: Writer) -> None:
    await writer.store.close()
    await until(lambda: _none_shut(store))


async def test_a_store_is_closed_in_time_although_the_server_does_not_hear_that_its_gates_open(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with wire(database_url) as cable:
        writer = Writer()
        writer.store = await PostgresEventStore.open(cable.url, announce=writer.announce)
        await writer.append()
        assert writer.gate
        monkeypatch.setattr(writer.store._lanes, "_timeout", 1.0)
        cable.cut()
        async with asyncio.timeout(LONG):
            await writer.store.close()


async def test_no_call_waits_until_its_gate_is_open_again(database_url: str) -> None:
    async with await PostgresEventStore.open(database_url, pool_size=4) as store, AsyncExitStack() as stack:
        kept = Lanes(store.pool, timeout=2 * LONG, prepare=True, gates=Gates(ENDLESS))
        free, lane = await kept.take(), await kept.take()
        lane.gate = 1
        await kept.leave(free)
        for _ in range(3):  # the third is the free lane's, which is given back when it is known that others wait
            await stack.enter_async_context(store.connection())
        waits = asyncio.create_task(store.head())
        await until(lambda: not kept.spare)
        async with asyncio.timeout(LONG):
            await kept.leave(lane)
        await stack.aclose()
        await waits
        await _give_up_closing(kept, store)


async def test_whoever_gives_up_closing_leaves_no_connection_behind(store: PostgresEventStore) -> None:
    kept = Lanes(store.pool, timeout=2 * LONG, prepare=True, gates=Gates(ENDLESS))
    taken = [await kept.take() for _ in range(3)]
    for lane in taken:
        lane.gate = 1
        await kept.leave(lane)
    await _give_up_closing(kept, store)
    stats = store.pool.get_stats
    await until(lambda: stats()["pool_available"] == stats()["pool_size"])


async def test_what_comes_thick_and_fast_passes_no_gates(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    shut = writer.gate
    monkeypatch.setattr(lanes, "QUIET", 3600.0)
    await writer.append()
    await writer.append()
    monkeypatch.setattr(lanes, "QUIET", 0.0)
    await writer.append()
    assert [gate for _, gate in writer.told] == [shut, None, None, writer.gate]


async def test_appends_that_follow_when_the_pool_has_the_connection_again_pass_gates_too(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats = writer.store.pool.get_stats
    monkeypatch.setattr(lanes, "KEPT_SHUT", 0.0)
    await until(lambda: stats()["pool_available"] == stats()["pool_size"])
    monkeypatch.setattr(lanes, "KEPT_SHUT", 3600.0)
    monkeypatch.setattr(lanes, "QUIET", 0.005)
    await writer.append()
    assert writer.gate


@pytest.mark.parametrize("shared", [True, False])
async def test_no_gates_are_shut_where_sessions_are_shared_or_connections_are_few(
    database_url: str, shared: bool
) -> None:
    writer = Writer()
    settings: dict[str, Any] = {"session_url": database_url} if shared else {"pool_size": 1}
    async with await PostgresEventStore.open(database_url, announce=writer.announce, **settings) as writer.store:
        await writer.append()
        assert writer.told == [(1, None)]
        assert await _shut(writer.store) == 0


async def test_nobody_waits_long_where_connections_are_few(database_url: str, writer: Writer) -> None:
    async with await PostgresEventStore.open(database_url, pool_size=1) as few:
        assert await few.page_behind(writer.gate, 0, 10, wait=LONG) == EventPage((), 0, 0)


async def test_hints_bring_the_events_of_the_next_append(
    database_url: str, redis_url: str, store: PostgresEventStore
) -> None:
    pages: list[EventPage] = []
    async with connect(database_url, redis_url=redis_url) as writer:
        hints = hints_of(writer.options)
        assert hints is not None
        heads = Heads(store, hints, poll_interval=3600)
        shared = SharedReader(store, heads, max_age=3600)

        def look_ahead(head: int, gate: Gate) -> None:
            async def behind(after: int, limit: int) -> EventPage:
                pages.append(await store.page_behind(gate, after, limit))
                return pages[-1]

            shared.look_ahead(head, gate.session, behind)

        hints.on_gate(look_ahead)
        following = asyncio.create_task(heads.run())
        seen: list[int] = []

        async def appended_and_read() -> bool:
            await writer.append("order-2", [NewEvent("Placed")])
            page = await shared.read_page(ALL, len(seen), 10)
            seen.extend(event.position for event in page.events)
            return any(page.events for page in pages)

        await until(appended_and_read)
        assert seen == list(range(1, len(seen) + 1))
        following.cancel()
        await asyncio.wait([following])
        await shared.close()
        await hints.close()


async def test_a_read_that_is_given_up_does_not_answer_the_next(store: PostgresEventStore, writer: Writer) -> None:
    given_up = asyncio.create_task(store.page_behind(writer.gate, 1, 10, wait=LONG))
    await until(lambda: _waits(store))
    given_up.cancel()
    await asyncio.wait([given_up])
    assert not (await store.page_behind(writer.gate, 1, 10, wait=0.001)).events
    assert [event.position for event in (await store.page_behind(NOBODY, 0, 10)).events] == [1]


async def test_a_read_whose_connection_is_ended_fails_and_the_next_does_not(
    store: PostgresEventStore, writer: Writer
) -> None:
    read = asyncio.create_task(store.page_behind(writer.gate, 1, 10, wait=LONG))
    await until(lambda: _waits(store))
    async with store.connection() as conn:
        await conn.execute(f"SELECT pg_terminate_backend(pid) {WAITING}")
    with pytest.raises(StoreUnavailable):
        await read
    assert [event.position for event in (await store.page_behind(NOBODY, 0, 10)).events] == [1]


async def test_a_read_that_is_under_way_when_its_store_is_closed_leaves_no_connection(
    database_url: str, store: PostgresEventStore, writer: Writer
) -> None:
    async with await PostgresEventStore.open(database_url, application_name="closing", timeout=2 * LONG) as closing:
        read = asyncio.create_task(closing.page_behind(writer.gate, 1, 10, wait=LONG))
        await until(lambda: _waits(store))
    with pytest.raises(StoreClosed):
        await closing.page_behind(NOBODY, 0, 10)
    await writer.append()
    assert [event.position for event in (await read).events] == [2]

    async def gone() -> bool:
        async with store.connection() as own:
            left = await own.execute(
                "SELECT FROM pg_stat_activity WHERE application_name = 'closing' AND datname = current_database()"
            )
            return not await left.fetchall()

    await until(gone)


async def test_what_was_prepared_for_such_reads_and_is_discarded_is_prepared_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "SMALLEST_POOL", 1)
    async with await PostgresEventStore.open(database_url, pool_size=1) as store:
        await store.append("order-1", [NewEvent("Placed")])
        for _ in range(3):
            assert (await store.page_behind(NOBODY, 0, 10)).read_to == 1
            async with store.connection() as conn:
                await conn.execute("DEALLOCATE ALL")


async def test_the_largest_numbers_find_nothing_and_larger_ones_are_refused(store: PostgresEventStore) -> None:
    assert not (await store.page_behind(Gate(MAX_SESSION, MAX_GATE), MAX_BIGINT, MAX_BIGINT)).events
    for name, session, gate, after in (
        ("session", MAX_SESSION + 1, 0, 0),
        ("gate", 0, MAX_GATE + 1, 0),
        ("after", 0, 0, MAX_BIGINT + 1),
    ):
        with pytest.raises(InvalidArgument, match=name):
            await store.page_behind(Gate(session, gate), after, 1)


def test_programs_that_seed_their_generator_alike_have_other_gates() -> None:
    numbers, state = [], random.getstate()
    try:
        for _ in range(2):
            random.seed(1)
            numbers.append(Gates(b"").number())
    finally:
        random.setstate(state)
    assert numbers[0] != numbers[1]


async def _last_gate(writer: Writer, head: int) -> Gate:
    await until(lambda: writer.told[-1][0] == head)
    return writer.gate


async def _waits(store: PostgresEventStore, table: str = "streams") -> bool:
    async with store.connection() as own:
        found = await own.execute(f"SELECT {WAITING} AND classid = %s::regclass", [f'"headwater"."{table}"'])
        return await found.fetchone() is not None


async def _give_up_closing(kept: Lanes, store: PostgresEventStore) -> None:
    closing = asyncio.create_task(kept.close())
    await until(lambda: _sleeps(store))
    closing.cancel()
    await asyncio.wait([closing])


async def _sleeps(store: PostgresEventStore) -> bool:
    async with store.connection() as own:
        found = await own.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
        )
        return await found.fetchone() is not None


async def _shut(store: PostgresEventStore) -> int:
    async with store.connection() as own:
        [(shut,)] = await (await own.execute(SHUT)).fetchall()
        return int(shut)


async def _none_shut(store: PostgresEventStore) -> bool:
    return await _shut(store) == 0
