"""Many writers at once, with everything going wrong: positions stay gapless and in the order of commits.

Connections are cut by the server, transactions roll back or commit late, streams are deleted, and a transaction that
has written stays open in a neighbour database, all while readers follow.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from headwater.storage.errors import StoreUnavailable
from headwater.storage.model import ALL, RecordedEvent
from headwater.storage.postgres.store import PostgresEventStore
from tests.integration.histories.writers import STREAMS, History, Writer
from tests.plugins.databases import new_database
from tests.plugins.waiting import until


@asynccontextmanager
async def open_write_transaction(server: str) -> AsyncIterator[None]:
    """Keep a transaction that has written open in a database beside the store's."""
    with new_database(server) as url:
        async with await psycopg.AsyncConnection.connect(url) as conn:
            await conn.execute("CREATE TABLE t (n integer)")
            await conn.execute("INSERT INTO t VALUES (1)")
            yield
            await conn.rollback()


async def cut_connections(url: str, history: History, finished: asyncio.Event, seed: int) -> int:
    """End a session of the store whenever some more appends were confirmed; returns how many were ended."""
    chance, cuts = random.Random(seed), 0
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, application_name="cutter") as conn:
        while not finished.is_set():
            enough = len(history.confirmed) + 15
            await until(lambda: finished.is_set() or len(history.confirmed) >= enough)  # noqa: B023  # awaited here
            cursor = await conn.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND backend_type = 'client backend' ORDER BY pid"
            )
            if pids := [row[0] for row in await cursor.fetchall()]:
                await conn.execute("SELECT pg_terminate_backend(%s)", [chance.choice(pids)])
                cuts += 1
    return cuts


async def follow(store: PostgresEventStore, finished: asyncio.Event) -> list[RecordedEvent]:
    """Read page after page until the writers have finished and the head is reached."""
    seen: list[RecordedEvent] = []
    after = 0
    while True:
        ending = finished.is_set()
        try:
            page = await store.read_page(ALL, after, 7)
        except StoreUnavailable:
            continue
        seen += page.events
        after = page.read_to
        if page.read_to == page.head:
            if ending:
                return seen
            await until(lambda: finished.is_set() or store_moved(store, after))  # noqa: B023  # awaited here


async def store_moved(store: PostgresEventStore, after: int) -> bool:
    """Whether there is something after a position."""
    try:
        return await store.head() > after
    except StoreUnavailable:
        return False


async def follow_transiently(store: PostgresEventStore, ready: asyncio.Event) -> list[RecordedEvent]:
    """Follow with a transient subscription up to the event that ends the history."""
    seen: list[RecordedEvent] = []
    async with store.subscribe(ALL) as batches:
        ready.set()
        while not seen or seen[-1].stream != "end":
            seen += await anext(batches)
    return seen


@pytest.mark.parity("E5", "E4", "L9", "L19")
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_history_of_failures_keeps_the_order(database_url: str, database_server: str, seed: int) -> None:
    await play(database_url, database_server, seed, turns=12)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(3, 23))
async def test_long_histories_of_failures_keep_the_order(database_url: str, database_server: str, seed: int) -> None:
    await play(database_url, database_server, seed, turns=80)


async def play(url: str, server: str, seed: int, turns: int) -> None:
    """Let eight writers on two stores loose, follow them, and check what came of it."""
    history, finished, ready = History(), asyncio.Event(), asyncio.Event()
    async with (
        open_write_transaction(server),
        await PostgresEventStore.open(url, hard_deletes=True, pool_size=4) as one,
        await PostgresEventStore.open(url, hard_deletes=True, pool_size=2) as two,
        asyncio.TaskGroup() as tasks,
    ):
        readers = [tasks.create_task(follow(store, finished)) for store in (one, two)]
        readers.append(tasks.create_task(follow_transiently(one, ready)))
        cutting = tasks.create_task(cut_connections(url, history, finished, seed))
        await ready.wait()
        writers = [Writer(store, url, history, 100 * seed + n) for n, store in enumerate((one, two) * 4)]
        await asyncio.gather(*(writer.run(turns) for writer in writers))
        await Writer(one, url, history, seed).append_last()
        finished.set()
        cuts = await cutting
        found = [await reader for reader in readers]
    assert cuts > 0
    assert set(history.done) == {kind.__name__ for kind in writers[0].kinds()}, "everything was tried"
    async with await PostgresEventStore.open(url) as store:
        check(history, [event async for event in store.stream_all()], await store.head())
        await check_links(store, history)
    for seen in found:
        check_reader(history, seen)


def check(history: History, stored: list[RecordedEvent], head: int) -> None:
    """Positions are gapless but for what was removed, versions contiguous, nothing is lost, doubled or out of order."""
    positions = [event.position for event in stored]
    assert positions == sorted(set(range(1, head + 1)) - history.removed)
    versions: dict[str, list[int]] = defaultdict(list)
    for event in stored:
        versions[event.stream].append(event.version)
    assert all(found == list(range(1, len(found) + 1)) for found in versions.values())
    assert [event.created_at for event in stored] == sorted(event.created_at for event in stored)

    at = {event.position: event for event in stored}
    for append in history.confirmed:
        result = append.result
        places = range(result.first_position, result.last_position + 1)
        assert [at[position].id for position in places] == append.ids
        assert [at[position].version for position in places] == list(
            range(result.first_version, result.last_version + 1)
        )
        assert {at[position].stream for position in places} == {result.stream}
    assert Counter(event.id for event in stored) == Counter(id for append in history.confirmed for id in append.ids)
    assert not history.undone & {event.id for event in stored}

    # What was confirmed before another append began stands before it.
    ended = sorted(history.confirmed, key=lambda append: append.ended)
    began = sorted(history.confirmed, key=lambda append: append.began)
    highest, done = 0, 0
    for append in began:
        while ended[done].ended < append.began:
            highest, done = max(highest, ended[done].result.last_position), done + 1
        assert append.result.first_position > highest


async def check_links(store: PostgresEventStore, history: History) -> None:
    """Every confirmed link is there, each event once, numbered without a gap."""
    page = await store.read_page("links", 0, 100_000)
    assert [event.number for event in page.events] == list(range(1, page.head + 1))
    assert len({event.id for event in page.events}) == len(page.events) >= history.links
    assert {event.stream for event in page.events} <= set(STREAMS)


def check_reader(history: History, seen: list[RecordedEvent]) -> None:
    """A reader saw everything once, in order; of what was removed it may have seen some."""
    positions = [event.position for event in seen]
    assert positions == sorted(set(positions))
    confirmed = {
        position
        for append in history.confirmed
        for position in range(append.result.first_position, append.result.last_position + 1)
    }
    assert set(positions) - history.removed == confirmed
