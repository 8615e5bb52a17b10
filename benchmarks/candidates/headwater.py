"""Headwater's store on a database of its own, with nothing but default settings."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import psycopg

from benchmarks import load
from benchmarks.bench import Bench
from benchmarks.measure import Sample
from benchmarks.payload import STREAM_LENGTH, TYPE, payload
from headwater.storage.model import NewEvent
from headwater.storage.options import StoreOptions
from headwater.storage.postgres import schema
from headwater.storage.postgres.store import PostgresEventStore
from headwater.storage.store import EventStore

NAME = "headwater"
_COUNT = 'SELECT count(*) FROM "headwater"."events"'


class Store:
    """The store, and how many events it has."""

    def __init__(self, url: str, store: EventStore) -> None:
        self.url = url
        self.store = store
        self._numbers = itertools.count()

    async def count(self) -> int:
        """Count the stored events."""
        async with await psycopg.AsyncConnection.connect(self.url) as conn:
            return int((await (await conn.execute(_COUNT)).fetchall())[0][0])

    def events(self, number: int) -> list[NewEvent]:
        """Return new events, as a caller has them: not encoded."""
        return [NewEvent(TYPE, payload(n)) for n in itertools.islice(self._numbers, number)]

    async def append(self, writers: int, batch: int, seconds: float) -> Sample:
        """Let writers append for so long, each to streams of its own, with exact expected versions."""
        before = await self.count()
        places: dict[int, tuple[str, int]] = {}

        async def call(writer: int) -> None:
            stream, version = places.get(writer, ("", 0))
            if not stream or version + batch > STREAM_LENGTH:
                stream, version = f"order-{uuid.uuid4()}", 0
            await self.store.append(stream, self.events(batch), version)
            places[writer] = stream, version + batch

        done = await load.tasks(writers, seconds, call)
        return Sample(done.calls * batch, await self.count() - before, done.seconds, done.latencies)

    async def read(self, streams: Sequence[str], length: int, readers: int, seconds: float) -> Sample:
        """Let readers read whole streams for so long."""
        found = [0] * readers
        turns = [load.turn(streams, reader) for reader in range(readers)]

        async def call(reader: int) -> None:
            events = await self.store.read(next(turns[reader]), limit=length)
            found[reader] += len(events)

        done = await load.tasks(readers, seconds, call)
        return Sample(done.calls * length, sum(found), done.seconds, done.latencies)

    async def read_everything(self, page: int, events: int) -> Sample:
        """Read the whole store once, lazily."""
        found = 0
        begun = time.perf_counter()
        async for _ in self.store.stream_all(page_size=page):
            found += 1
        return Sample(events, found, time.perf_counter() - begun)


async def make_schema(url: str) -> None:
    """Make the store's tables."""
    await schema.migrate(StoreOptions(url=url))


@asynccontextmanager
async def store(url: str) -> AsyncIterator[Store]:
    """Open the store on a database that has its tables."""
    async with await PostgresEventStore.open(url) as opened:
        yield Store(url, opened)


@asynccontextmanager
async def empty_store(bench: Bench) -> AsyncIterator[Store]:
    """Open a store on a database of its own."""
    async with bench.database() as url:
        await make_schema(url)
        async with store(url) as opened:
            yield opened
