"""Ranges that were moved into files: read as before, checked, brought back, and erased."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

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
    Filter,
    ImportedEvent,
    NewEvent,
    RecordedEvent,
)
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.archiving import open_archive
from headwater.storage.postgres.partitioning import partition
from headwater.storage.postgres.store import PostgresEventStore
from headwater.subscriptions.options import SubscriptionOptions
from tests.integration.subscriptions.following import following
from tests.plugins.events import events

SIZE = 20


@pytest.fixture
async def options(database_url: str, tmp_path: Path) -> StoreOptions:
    """Of a store in ranges of 20 positions, with 100 events of an hour each and a folder for the archive."""
    options = StoreOptions(url=database_url, hard_deletes=True, archive=str(tmp_path / "archive"))
    await partition(options, SIZE)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    async with await PostgresEventStore.open(options=options) as store:
        await store.import_events(
            ImportedEvent(
                f"s-{n % 3}",
                NewEvent(
                    "Odd" if n % 2 else "Even",
                    {"n": n, "text": "a\nü"},
                    metadata={"m": n} if n % 5 else None,
                    tags=[f"t{n % 7}"],
                    correlation_id=NewEvent("X").id if n % 4 else None,
                ),
                begin + timedelta(hours=n),
            )
            for n in range(1, 101)
        )
        await store.link("links", [e for e in await store.read(ALL) if e.position in (5, 30, 90)])
        await store.append("links", events(1))
    return options


@pytest.fixture
async def store(options: StoreOptions) -> AsyncIterator[PostgresEventStore]:
    async with await PostgresEventStore.open(options=options) as store:
        yield store


async def archive(options: StoreOptions, before: int = 61) -> None:
    async with open_archive(options) as archivist:
        await archivist.archive(before)


async def everything(store: PostgresEventStore) -> list[object]:
    """Return what every kind of read gives."""
    reads: list[object] = []
    for source in (ALL, "s-0", "s-1", "s-2", "links"):
        for backward in (False, True):
            for start in (None, 1, 2, 13, 21, 59, 61, 99):
                for limit in (0, 1, 7, 1000):
                    reads.append(await store.read(source, start=start, limit=limit, backward=backward))
            reads.append([event async for event in store.stream(source, backward=backward, page_size=9)])
        for where in (EVERYTHING, Filter(types=("Odd",)), Filter(tags=("t3",)), Filter(streams=("s-1",))):
            for limit in (4, 1000):
                after, paged = 0, []
                while True:
                    page = await store.read_page(source, after, limit, where=where)
                    paged += page.events
                    if page.read_to == page.head:
                        break
                    assert page.read_to > after
                    after = page.read_to
                reads.append(paged)
    for where in (Filter(types=("Odd",)), Filter(tags=("t3",)), Filter(categories=("links",))):
        for backward in (False, True):
            for start in (None, 15, 70):
                for limit in (3, 1000):
                    reads.append(await store.read_all(start=start, limit=limit, backward=backward, where=where))
    for hours in (-1, 0, 1, 20, 21, 55, 60, 61, 62, 99, 1000):
        reads.append(await store.position_at(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hours)))
    return reads


async def test_every_read_gives_the_same_when_old_ranges_are_archived_and_when_they_are_back(
    store: PostgresEventStore, options: StoreOptions
) -> None:
    before = await everything(store)
    async with open_archive(options) as archivist:
        assert [r.last_position for r in await archivist.candidates(61)] == [20, 40, 60]
        assert [r.last_position for r in await archivist.archive(61)] == [20, 40, 60]
        assert await archivist.archive(61) == []
        assert [r.state for r in await archivist.ranges()][:6] == ["archived"] * 3 + ["closed"] * 2 + ["open"]
        assert {r.state for r in await archivist.verify()} == {"archived"}
    async with await psycopg.AsyncConnection.connect(options.url) as conn:
        [left] = await (await conn.execute('SELECT min("position") FROM "headwater"."events"')).fetchone() or []
        assert left == 61
    after = await everything(store)
    for one, two in zip(before, after, strict=True):
        assert one == two
    async with open_archive(options) as archivist:
        assert [r.first_position for r in await archivist.restore(35)] == [21, 41]
        assert await everything(store) == before
        await archivist.restore()
    assert await everything(replace_archive(store)) == before


def replace_archive(store: PostgresEventStore) -> PostgresEventStore:
    return store
