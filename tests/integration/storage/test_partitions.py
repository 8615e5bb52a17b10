"""A store whose events are in ranges of positions: made so, or changed while it is in use."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from headwater.storage.errors import DuplicateEvent
from headwater.storage.model import ALL, ImportedEvent, NewEvent
from headwater.storage.options import StoreOptions
from headwater.storage.postgres import schema
from headwater.storage.postgres.partitioning import partition
from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.events import events


async def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        return await (await conn.execute(statement)).fetchall()


async def test_ranges_are_made_ahead_of_the_head(database_url: str) -> None:
    assert await partition(StoreOptions(url=database_url), 10)
    async with await PostgresEventStore.open(database_url) as store:
        for n in range(7):
            await store.append(f"s-{n}", events(5))
        await store.append("big", events(95))  # more than all ranges that are there
        assert [event.position for event in await store.read(ALL)] == list(range(1, 131))
        assert await store.import_events([ImportedEvent("i", event) for event in events(40)]) == 40
    made = await rows(database_url, 'SELECT max("last_position") FROM "headwater"."ranges"')
    assert made == [(190,)]
