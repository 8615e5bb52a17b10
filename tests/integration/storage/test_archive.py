"""Ranges that were moved into files: read as before, checked, brought back, and erased."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from headwater.storage.archive.files import ArchiveFolder, Manifest, RangeWriter
from headwater.storage.errors import (
    ArchiveDamaged,
    ConditionFailed,
    ConfigurationError,
    DuplicateEvent,
    RangeArchived,
    StreamNotFound,
)
from headwater.storage.model import (
    ALL,
    EVERYTHING,
    NO_STREAM,
    AppendCondition,
    EventPage,
    Filter,
    Gate,
    ImportedEvent,
    NewEvent,
    RecordedEvent,
)
from headwater.storage.options import StoreOptions
from headwater.storage.postgres import schema
from headwater.storage.postgres.archiving import Archivist, open_archive
from headwater.storage.postgres.partitioning import partition
from headwater.storage.postgres.statements import PAYLOAD_TYPES, PayloadType
from headwater.storage.postgres.store import PostgresEventStore
from headwater.subscriptions.options import SubscriptionOptions
from tests.integration.subscriptions.following import following
from tests.plugins.events import events
from tests.plugins.waiting import until

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
FIRST = uuid.UUID(int=1)
SIZE = 20


@pytest.fixture
async def options(database_url: str, tmp_path: Path) -> StoreOptions:
    """Of a store in ranges of 20 positions, with 100 events of an hour each and a folder for the archive."""
    options = StoreOptions(url=database_url, hard_deletes=True, archive=str(tmp_path / "archive"))
    await partition(options, SIZE)
    async with await PostgresEventStore.open(options=options) as store:
        numbered = (
            ImportedEvent(
                f"s-{n % 3}",
                NewEvent(
                    "Odd" if n % 2 else "Even",
                    {"n": n, "text": "a\nü"},
                    metadata={"m": n} if n % 5 else None,
                    tags=[f"t{n % 7}"],
                    correlation_id=uuid.UUID(int=n) if n % 4 else None,
                    id=uuid.UUID(int=n),
                ),
                BEGIN + timedelta(hours=n),
            )
            for n in range(1, 101)
        )
        # In steps: what is written at once beyond all ranges gets one as large as it takes.
        await store.import_events(numbered, batch_size=SIZE)
        await store.link("links", [e for e in await store.read(ALL) if e.position in (5, 30, 90)])
        await store.append("links", events(1))
    return options


@pytest.fixture
async def store(options: StoreOptions) -> AsyncIterator[PostgresEventStore]:
    async with await PostgresEventStore.open(options=options) as store:
        yield store


async def everything(store: PostgresEventStore) -> list[object]:
    """Return what every kind of read gives."""
    reads: list[object] = []
    for source, backward in itertools.product((ALL, "s-1", "links"), (False, True)):
        for start, limit in ((None, 1000), (None, 7), (13, 30), (59, 3), (2, 1), (21, 0)):
            reads.append(await store.read(source, start=start, limit=limit, backward=backward))
        reads.append([event.id async for event in store.stream(source, backward=backward, page_size=25)])
    for source, where in itertools.product((ALL, "s-1", "links"), (EVERYTHING, Filter(types=("Odd",)))):
        reads.append([event async for page in pages(store, source, 9, where) for event in page])
    for where in (Filter(types=("Odd",)), Filter(tags=("t3",)), Filter(categories=("links",))):
        for backward, start in itertools.product((False, True), (None, 70)):
            reads.append(await store.read_all(start=start, limit=8, backward=backward, where=where))
    reads += [await store.position_at(BEGIN + timedelta(hours=hours)) for hours in (-1, 1, 20, 21, 61, 99, 1000)]
    return reads


async def pages(
    store: PostgresEventStore, source: str, limit: int, where: Filter = EVERYTHING
) -> AsyncIterator[Sequence[RecordedEvent]]:
    """Page through a source as a subscription does."""
    after = 0
    while (page := await store.read_page(source, after, limit, where=where)).read_to > after:
        yield page.events
        after = page.read_to
    assert after == page.head


@pytest.mark.parity("L28")
async def test_every_read_gives_the_same_when_old_ranges_are_archived_and_when_they_are_back(
    store: PostgresEventStore, options: StoreOptions
) -> None:
    before = await everything(store)
    async with open_archive(options) as archivist:
        assert [r.last_position for r in await archivist.candidates(61)] == [20, 40, 60]
        assert [r.last_position for r in await archivist.archive(61)] == [20, 40, 60]
        assert await archivist.archive(61) == []
        assert [r.state for r in await archivist.ranges()][:6] == ["archived"] * 3 + ["closed"] * 2 + ["open"]
        assert [r.state for r in await archivist.verify()] == ["archived"] * 3
        assert await value(options, 'SELECT min("position") FROM "headwater"."events"') == 61
        assert await everything(store) == before
        assert [r.first_position for r in await archivist.restore(35)] == [21, 41]
        assert await value(options, 'SELECT min("position") FROM "headwater"."events"') == 21
        assert await everything(store) == before
        await archivist.restore()
    assert await value(options, 'SELECT min("position") FROM "headwater"."events"') == 1
    assert await store.read(ALL) == before[0]


async def test_without_the_folder_a_read_names_the_range_and_passes_over_nothing(options: StoreOptions) -> None:
    await archive(options)
    async with await PostgresEventStore.open(options=replace(options, archive=None)) as store:
        for call in (
            lambda: store.read(ALL),
            lambda: store.read(ALL, start=60),
            lambda: store.read(ALL, limit=60, backward=True),
            lambda: store.read("s-1"),
            lambda: store.read("links"),
            lambda: store.read_all(where=Filter(types=("Odd",))),
            lambda: store.read_page(ALL, 0, 10),
            lambda: store.read_page(ALL, 0, 10, where=Filter(types=("Odd",))),
            lambda: store.read_page("s-1", 0, 10),
            lambda: store.position_at(BEGIN),
            lambda: store.link("more", [FIRST]),
            lambda: store.append("x", events(1), condition=AppendCondition(Filter(types=("Odd",)), 0)),
        ):
            with pytest.raises(RangeArchived) as refused:
                await call()
            assert refused.value.last_position in (20, 40, 60)
        assert [event.position for event in await store.read(ALL, start=61, limit=3)] == [61, 62, 63]
        assert len(await store.read(ALL, limit=40, backward=True)) == 40


async def test_an_event_that_is_sent_again_is_recognised_when_it_is_archived(
    store: PostgresEventStore, options: StoreOptions
) -> None:
    first = await store.append("again", events(2), NO_STREAM)
    sent = [NewEvent("OrderPlaced", {"n": n}) for n in range(30)]
    written = await store.append("again", sent, 2)
    await store.append("fill", events(40))
    await archive(options, written.last_position + SIZE)
    again = await store.append("again", sent, 2)
    assert (again.repeated, again.first_position, again.first_version) == (True, first.last_position + 1, 3)
    with pytest.raises(DuplicateEvent):
        await store.append("elsewhere", sent[:1])
    assert await store.import_events([ImportedEvent("again", event) for event in sent]) == 0


async def test_a_condition_sees_what_is_archived(store: PostgresEventStore, options: StoreOptions) -> None:
    await store.append("s-9", events(1, tags=["mail:a"]))
    await store.append("fill", events(40))
    await archive(options, 121)
    assert await store.append("x", events(1), condition=AppendCondition(Filter(tags=("mail:b",)), 0))
    with pytest.raises(RangeArchived):
        await store.append("x", events(1), condition=AppendCondition(Filter(tags=("mail:a",)), 0))
    assert await store.append("x", events(1), condition=AppendCondition(Filter(streams=("fresh",)), 0))
    with pytest.raises(RangeArchived):
        await store.append("x", events(1), condition=AppendCondition(Filter(streams=("s-9",)), 0))
    with pytest.raises(ConditionFailed):
        await store.append("x", events(1), condition=AppendCondition(Filter(streams=("fill",)), 125))


async def test_a_subscription_catches_up_from_the_archive(store: PostgresEventStore, options: StoreOptions) -> None:
    await archive(options)
    for name, source, numbers in (
        ("all", ALL, range(1, 102)),
        ("one", "s-1", range(1, 35)),
        ("links", "links", range(1, 5)),
    ):
        async with following(store, name, SubscriptionOptions(source=source)) as subscription:
            await subscription.has_settled(numbers[-1])
            assert subscription.numbers == list(numbers)


async def test_what_is_deleted_for_good_is_gone_from_the_archive_too(
    store: PostgresEventStore, options: StoreOptions, tmp_path: Path
) -> None:
    await archive(options)
    gone = {event.id for event in await store.read("s-1")}
    kept = [
        event
        for event in await store.read(ALL)
        if event.id not in gone and not (event.stream == "s-2" and event.version < 10)
    ]
    await store.delete_stream("s-1", hard=True)
    await store.truncate_stream("s-2", 10)
    assert [e.id for e in await store.read(ALL)] == [e.id for e in kept]
    assert (await store.read("s-2"))[0].version == 10
    with pytest.raises(StreamNotFound):
        await store.read("s-1")
    await store.append("s-1", events(1), NO_STREAM)
    assert [event.version for event in await store.read("s-1")] == [1]

    assert b"s-1" in unpacked(tmp_path)
    async with open_archive(options) as archivist:
        assert [r.first_position for r in await archivist.erase()] == [1, 21, 41]
        assert await archivist.erase() == []
        assert {r.state for r in await archivist.verify()} == {"archived"}
    assert b'"s-1"' not in unpacked(tmp_path)
    assert [e.id for e in await store.read(ALL)][: len(kept)] == [e.id for e in kept]
    left = await value(options, 'SELECT count(*) FROM "headwater"."event_ids"')
    assert left == len(kept) + 1
    async with open_archive(options) as archivist:
        await archivist.restore()
    assert [e.id for e in await store.read(ALL)][: len(kept)] == [e.id for e in kept]


async def test_an_erasure_that_was_interrupted_leaves_no_old_file(
    store: PostgresEventStore, options: StoreOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def killed(_folder: ArchiveFolder, _file: str) -> None:
        raise ConnectionError

    await archive(options)
    kept = [event.id for event in await store.read(ALL) if event.stream != "s-1"]
    await store.delete_stream("s-1", hard=True)
    with monkeypatch.context() as patch:
        patch.setattr(ArchiveFolder, "remove", killed)
        async with open_archive(options) as archivist:
            with pytest.raises(ConnectionError):
                await archivist.erase()
    assert b'"s-1"' in unpacked(tmp_path)
    async with open_archive(options) as archivist:
        await archivist.erase()
    assert b'"s-1"' not in unpacked(tmp_path)
    assert len(list((tmp_path / "archive").iterdir())) == 2 * 3
    assert [event.id for event in await store.read(ALL)] == kept


async def test_what_was_deleted_before_it_was_brought_back_stays_deleted(
    store: PostgresEventStore, options: StoreOptions
) -> None:
    await archive(options)
    linked = next(event for event in await store.read("links") if event.position == 5)
    await store.delete_stream(linked.stream, hard=True)
    kept = [event.id for event in await store.read(ALL)]
    async with open_archive(options) as archivist:
        await archivist.restore()
    assert [event.id for event in await store.read(ALL)] == kept
    assert await value(options, 'SELECT count(*) FROM "headwater"."event_ids"') == len(kept)
    assert await value(options, 'SELECT count(*) FROM "headwater"."links" WHERE "position" = 5') == 0


async def test_what_is_deleted_while_it_is_brought_back_stays_deleted(
    store: PostgresEventStore, options: StoreOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    await archive(options)
    kept = [
        event.id
        for event in await store.read(ALL)
        if event.stream != "s-1" and not (event.stream == "s-2" and event.version < 3)
    ]
    fill = Archivist._blocks
    deletes = iter([store.delete_stream("s-1", hard=True), store.truncate_stream("s-2", 3)])

    async def fill_slowly(archivist: Archivist, manifest: Manifest) -> AsyncIterator[list[RecordedEvent]]:
        async for block in fill(archivist, manifest):
            yield block
        for delete in deletes:
            await delete

    monkeypatch.setattr(Archivist, "_blocks", fill_slowly)
    async with open_archive(options) as archivist:
        await archivist.restore()
    assert [event.id for event in await store.read(ALL)] == kept
    assert await value(options, 'SELECT count(*) FROM "headwater"."event_ids"') == len(kept)
    tags = 'SELECT count(*) FROM "headwater"."event_tags" LEFT JOIN "headwater"."events" AS "e" USING ("position")'
    assert await value(options, f'{tags} WHERE "e"."position" IS NULL') == 0


@pytest.mark.parametrize("source", [ALL, "s-2", "links"])
async def test_a_read_goes_on_in_the_file_that_was_written_anew(
    store: PostgresEventStore, options: StoreOptions, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    await archive(options)
    await store.delete_stream("s-1", hard=True)
    wanted = [event.id for event in await store.read(source)]
    complete = store._archived.complete

    async def complete_late(*arguments: Any) -> list[RecordedEvent]:
        async with open_archive(options) as archivist:
            await archivist.erase()
        return await complete(*arguments)

    monkeypatch.setattr(store._archived, "complete", complete_late)
    assert [event.id for event in await store.read(source)] == wanted


async def test_a_range_from_which_something_is_deleted_during_the_export_is_exported_again(
    store: PostgresEventStore, options: StoreOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deletes = iter([store.truncate_stream("s-1", 3)])
    finish = RangeWriter.finish
    loop = asyncio.get_running_loop()

    def finish_late(writer: RangeWriter) -> tuple[Manifest, str]:
        for delete in deletes:
            asyncio.run_coroutine_threadsafe(delete, loop).result()
        return finish(writer)

    monkeypatch.setattr(RangeWriter, "finish", finish_late)
    await archive(options, 21)
    assert [event.version for event in await store.read("s-1", limit=2)] == [3, 4]
    assert b'"s-1","version":1,' not in unpacked(tmp_path)
    assert len(list((tmp_path / "archive").iterdir())) == 2


async def test_damage_is_noticed_by_readers_and_by_the_check(
    store: PostgresEventStore, options: StoreOptions, tmp_path: Path
) -> None:
    await archive(options)
    first, second, third = sorted((tmp_path / "archive").glob("*.ndjson.gz"))
    raw = bytearray(first.read_bytes())
    raw[len(raw) // 2] ^= 1
    first.write_bytes(raw)
    second.unlink()
    manifest = third.with_name(third.name.removesuffix(".ndjson.gz") + ".json")
    manifest.write_bytes(manifest.read_bytes().replace(b'"events":20', b'"events":21'))
    async with open_archive(options) as archivist:
        checked = await archivist.verify()
        assert [each.state for each in checked] == ["damaged"] * 3
        with pytest.raises(ArchiveDamaged):
            await archivist.restore()
    for position in (1, 21, 41):
        with pytest.raises(ArchiveDamaged):
            await store.read(ALL, start=position, limit=1)
    assert [event.position for event in await store.read(ALL, start=61, limit=1)] == [61]


async def test_the_files_are_lines_of_json_that_every_tool_can_read(options: StoreOptions, tmp_path: Path) -> None:
    await archive(options)
    lines = [json.loads(line) for line in unpacked(tmp_path).splitlines()]
    assert [line["position"] for line in lines] == list(range(1, 61))
    assert lines[0]["data"] == {"n": 1, "text": "a\nü"}
    assert lines[0]["metadata"] == {"m": 1}
    assert "metadata" not in lines[4]
    assert datetime.fromisoformat(lines[0]["created_at"]) == BEGIN + timedelta(hours=1)


@pytest.mark.parametrize("payload", PAYLOAD_TYPES)
async def test_every_kind_of_payload_comes_back_from_a_file_and_to_the_table(
    empty_database_url: str, tmp_path: Path, payload: PayloadType
) -> None:
    options = StoreOptions(url=empty_database_url, payload=payload, archive=str(tmp_path / "archive"))
    values: list[Any] = [
        None,
        0,
        -1.5,
        2**53,
        "",
        'q"\\,"data":',
        "\u2028\n",
        {"data": [1, {"metadata": {}}]},
        [],
        {"ü": None},
    ]
    await schema.migrate(options)
    await partition(options, 10)
    async with await PostgresEventStore.open(options=options) as store:
        await store.append('s,"data":', [NewEvent("T", each, metadata={"v": each}) for each in values])
        await store.append("fill", events(1))
        before = await store.read(ALL)
        await store.archive(11)
        assert await store.read(ALL) == before
        async with open_archive(options) as archivist:
            await archivist.restore()
        assert await store.read(ALL) == before
        assert [event.data for event in before[:-1]] == values


async def test_an_archive_that_was_interrupted_is_finished_by_the_next(
    store: PostgresEventStore, options: StoreOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed(archivist: Archivist) -> None:
        raise ConnectionError

    before = await store.read(ALL)
    with monkeypatch.context() as patch:
        dropping = Archivist._drop_archived
        calls = iter([dropping, killed])
        patch.setattr(Archivist, "_drop_archived", lambda archivist: next(calls)(archivist))
        with pytest.raises(ConnectionError):
            await archive(options)
    # Marked, and still in the table: read once, all the same.
    assert await value(options, 'SELECT count(*) FROM "headwater"."ranges" WHERE "archived_at" IS NOT NULL') == 1
    assert await store.read(ALL) == before
    await archive(options)
    assert await store.read(ALL) == before
    assert await value(options, 'SELECT min("position") FROM "headwater"."events"') == 61


async def test_a_store_that_is_not_partitioned_says_what_to_do(database_url: str) -> None:
    with pytest.raises(ConfigurationError, match="headwater partition"):
        async with open_archive(StoreOptions(url=database_url)):
            pass


async def test_a_read_behind_an_append_passes_over_nothing_that_is_archived(
    store: PostgresEventStore, options: StoreOptions
) -> None:
    await archive(options, 21)
    nobody = Gate(1, 1)
    assert await store.page_behind(nobody, 10, 5) == EventPage((), 10, 10)
    assert [event.position for event in (await store.page_behind(nobody, 20, 5)).events] == [21, 22, 23, 24, 25]


async def test_readers_never_miss_an_event_while_ranges_go_and_come_back(
    store: PostgresEventStore, options: StoreOptions
) -> None:
    before = [event.id for event in await store.read(ALL)]
    moved = asyncio.Event()

    async def keep_reading(source: str, wanted: list[uuid.UUID]) -> int:
        reads = 0
        while not moved.is_set():
            assert [event.id for event in await store.read(source)] == wanted
            assert [event.id async for page in pages(store, source, 30) for event in page] == wanted
            reads += 1
        return reads

    streams = {source: [event.id for event in await store.read(source)] for source in (ALL, "s-1", "links")}
    readers = [asyncio.create_task(keep_reading(source, wanted)) for source, wanted in streams.items()]
    async with open_archive(options) as archivist:
        for _ in range(4):
            await archivist.archive(61)
            await archivist.restore()
    moved.set()
    assert all(await asyncio.gather(*readers))
    assert [event.id for event in await store.read(ALL)] == before


async def test_a_range_comes_back_when_nobody_is_reading(store: PostgresEventStore, options: StoreOptions) -> None:
    before = await store.read(ALL)
    await archive(options)
    archived = await value(options, ARCHIVED)
    async with open_archive(options) as archivist, await psycopg.AsyncConnection.connect(options.url) as reading:
        await reading.execute('SELECT FROM "headwater"."events" LIMIT 1')
        restoring = asyncio.create_task(archivist.restore(40))
        await until(lambda: waits_for_a_lock(options))
        assert await value(options, ARCHIVED) == archived
        assert await store.read(ALL) == before
        await reading.rollback()
        assert [each.first_position for each in await restoring] == [41]
        assert await value(options, ARCHIVED) == archived - 1
        assert await store.read(ALL) == before


ARCHIVED = 'SELECT count(*) FROM "headwater"."ranges" WHERE "archived_at" IS NOT NULL'
WAITS = """
SELECT count(*) FROM pg_locks JOIN pg_database ON "database" = pg_database."oid"
WHERE "datname" = current_database() AND "mode" = 'AccessExclusiveLock' AND NOT "granted"
"""


async def waits_for_a_lock(options: StoreOptions) -> bool:
    return bool(await value(options, WAITS))


async def archive(options: StoreOptions, before: int = 61) -> None:
    async with open_archive(options) as archivist:
        await archivist.archive(before)


async def value(options: StoreOptions, statement: str) -> Any:
    async with await psycopg.AsyncConnection.connect(options.url) as conn:
        row = await (await conn.execute(statement.encode())).fetchone()
        assert row is not None
        return row[0]


def unpacked(folder: Path) -> bytes:
    return b"".join(gzip.decompress(file.read_bytes()) for file in sorted((folder / "archive").glob("*.ndjson.gz")))
