"""A store whose events are in ranges of positions: made so, or changed while it is in use."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from headwater.storage.errors import ConfigurationError, DuplicateEvent, InvalidArgument, StoreUnavailable
from headwater.storage.model import ALL, NO_STREAM, ImportedEvent, NewEvent
from headwater.storage.options import StoreOptions
from headwater.storage.postgres import partitioning
from headwater.storage.postgres.archiving import open_archive
from headwater.storage.postgres.connect import StoreConnection
from headwater.storage.postgres.partitioning import partition, ranges_lock
from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.events import events

LAST = 'SELECT max("last_position") FROM "headwater"."ranges"'


async def value(url: str, statement: str) -> object:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        row = await (await conn.execute(statement.encode())).fetchone()
        assert row is not None
        return row[0]


async def test_ranges_are_made_ahead_of_the_head(database_url: str) -> None:
    assert await partition(StoreOptions(url=database_url), 10)
    assert not await partition(StoreOptions(url=database_url), 20)
    async with await PostgresEventStore.open(database_url) as store:
        for n in range(7):
            await store.append(f"s-{n}", events(5))
        await store.append("big", events(95))  # more than all ranges that are there
        assert [event.position for event in await store.read(ALL)] == list(range(1, 131))
        assert await store.import_events([ImportedEvent("i", event) for event in events(40)]) == 40
    assert await value(database_url, LAST) == 190


async def test_an_append_neither_fails_nor_waits_when_no_range_can_be_made_ahead(partitioned_url: str) -> None:
    async with (
        await PostgresEventStore.open(partitioned_url) as store,
        await psycopg.AsyncConnection.connect(partitioned_url) as other,
    ):
        # As a detachment does: it allows appends, and no new range.
        await other.execute('LOCK "headwater"."events" IN SHARE UPDATE EXCLUSIVE MODE')
        await store.append("s", events(20))
        assert await value(partitioned_url, LAST) == 32
        await other.rollback()
        await store.append("s", events(20))
        assert await value(partitioned_url, LAST) == 80
        assert len(await store.read("s")) == 40


async def test_a_cursor_of_the_callers_own_does_not_keep_it_from_appending(partitioned_url: str) -> None:
    async with (
        await PostgresEventStore.open(partitioned_url) as store,
        await psycopg.AsyncConnection.connect(partitioned_url) as conn,
    ):
        await store.append("s", events(3))
        async with conn.transaction(), conn.cursor(name="mine") as cursor:
            await cursor.execute('SELECT "position" FROM "headwater"."events"')
            assert await cursor.fetchone() == (1,)
            await store.append("s", events(20), conn=conn)
        assert len(await store.read("s")) == 23


async def test_a_store_is_partitioned_while_it_is_in_use(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitioning, "_BATCH", 50)
    monkeypatch.setattr(partitioning, "ROOM", 2_000)
    options = StoreOptions(url=database_url, hard_deletes=True)
    async with await PostgresEventStore.open(options=options) as store:
        first = events(7)
        await store.append("first", first, NO_STREAM)
        for n in range(60):
            await store.append(f"old-{n}", events(5))
        done = asyncio.Event()

        async def write(name: str) -> int:
            version = 0
            while not done.is_set():
                assert (await store.append(name, events(2), version)).last_version == version + 2
                version += 2
                if name == "new-0" and version in (4, 8, 12):
                    await store.delete_stream(f"old-{version}", hard=True)
            return version

        writers = [asyncio.create_task(write(f"new-{n}")) for n in range(3)]
        assert await partition(options, 100)
        done.set()
        versions = await asyncio.gather(*writers)
        everything = await store.read(ALL, limit=100_000)
        assert [len(await store.read(f"new-{n}", limit=10_000)) for n in range(3)] == versions
    async with await PostgresEventStore.open(options=options) as store:
        assert await store.read(ALL, limit=100_000) == everything
        assert (await store.append("first", first, NO_STREAM)).repeated
        with pytest.raises(DuplicateEvent):
            await store.append("second", first[:1])
        await store.append("more", events(2_500))
        assert await value(database_url, 'SELECT count(*) FROM "headwater"."event_ids"') == len(everything) + 2_500
        assert (
            await value(
                database_url,
                'SELECT count(*) FROM "headwater"."event_ids" AS "id" '
                'JOIN "headwater"."events" AS "event" USING ("event_id", "position") '
                'WHERE "id"."version" = "event"."version"',
            )
            == len(everything) + 2_500
        )


async def test_readers_from_before_the_change_have_to_be_restarted_before_anything_is_archived(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(partitioning, "ROOM", 1)
    options = StoreOptions(url=database_url, archive=str(tmp_path))
    async with await PostgresEventStore.open(options=options) as store:
        await store.append("s", events(3))
    await partition(options, 5)
    async with await PostgresEventStore.open(options=options) as store:
        await store.append("s", events(20))
        async with open_archive(options) as archivist:
            with pytest.raises(ConfigurationError, match="restart all programs"):
                await archivist.archive(12)
            assert len(await archivist.archive(12, readers_restarted=True)) == 1
            assert len(await archivist.archive(17)) == 1
        assert len(await store.read("s")) == 23


async def test_one_process_at_a_time_works_on_the_ranges(partitioned_url: str) -> None:
    options = StoreOptions(url=partitioned_url)
    async with ranges_lock(options):
        with pytest.raises(StoreUnavailable, match="another process"):
            await partition(options, 5)


@pytest.mark.parametrize("fails", [False, True])
async def test_who_works_on_the_ranges_next_need_not_wait_until_the_last_session_has_ended(
    partitioned_url: str, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    options = StoreOptions(url=partitioned_url)
    left: list[StoreConnection] = []

    async def leave(conn: StoreConnection) -> None:
        left.append(conn)  # the server has yet to come to it

    with monkeypatch.context() as patch, suppress(ZeroDivisionError):
        patch.setattr(StoreConnection, "close", leave)
        async with ranges_lock(options):
            if fails:
                raise ZeroDivisionError
    async with ranges_lock(options):
        pass
    [conn] = left
    await conn.close()


@pytest.mark.parametrize("size", [0, -1, 2.5, True, None])
async def test_what_is_no_size_is_refused(database_url: str, size: int) -> None:
    with pytest.raises(InvalidArgument, match="partition_size"):
        await partition(StoreOptions(url=database_url), size)


async def test_ids_of_events_are_unique_over_all_ranges(partitioned_url: str) -> None:
    async with await PostgresEventStore.open(partitioned_url, hard_deletes=True) as store:
        [event] = events(1)
        await store.append("s", [event], NO_STREAM)
        await store.append("fill", events(40))
        with pytest.raises(DuplicateEvent):
            await store.append("other", [event])
        refused, written = await asyncio.gather(
            store.append("t", [NewEvent("T"), event]), store.append("u", events(2)), return_exceptions=True
        )
        assert isinstance(refused, DuplicateEvent)
        assert not isinstance(written, BaseException)
        await store.delete_stream("s", hard=True)
        assert (await store.append("other", [event])).last_version == 1
