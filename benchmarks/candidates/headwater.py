"""Headwater's store on a database of its own, with nothing but default settings."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeAlias

import psycopg

from benchmarks import load
from benchmarks.bench import Bench
from benchmarks.measure import Sample
from benchmarks.payload import STREAM_LENGTH, TYPE, payload
from headwater.storage.model import ALL, NO_STREAM, ImportedEvent, NewEvent, RecordedEvent
from headwater.storage.opening import connect
from headwater.storage.options import StoreOptions
from headwater.storage.postgres import connect as pg
from headwater.storage.postgres import group, schema
from headwater.storage.postgres.encoding import Encoder
from headwater.storage.postgres.lanes import Lane
from headwater.storage.postgres.store import PostgresEventStore

NAME, READY, CALLERS = "headwater", "ready batches", "callers alone"
READY_BATCHES = 1_000
"""So many of each connection are sent in a round."""

_COUNT = 'SELECT count(*) FROM "headwater"."events" WHERE "position" > %s'


Append: TypeAlias = Callable[[str, list[NewEvent], int], Awaitable[object]]
"""Called with a stream, events and the expected version."""


class Store:
    """The store, and how many events it has."""

    def __init__(self, url: str, store: PostgresEventStore) -> None:
        self.url = url
        self.store = store
        self._numbers = itertools.count()

    async def count(self, after: int = 0) -> int:
        """Count the stored events after a position."""
        async with await psycopg.AsyncConnection.connect(self.url) as conn:
            return int((await (await conn.execute(_COUNT, [after])).fetchall())[0][0])

    def events(self, number: int) -> list[NewEvent]:
        """Return new events, as a caller has them: not encoded."""
        return [NewEvent(TYPE, payload(n)) for n in itertools.islice(self._numbers, number)]

    async def append(self, writers: int, batch: int, seconds: float) -> Sample:
        """Let writers append for so long, each to streams of its own, with exact expected versions."""
        before = await self.store.head()
        done = await self._call(writers, batch, seconds, self.store.append)
        return Sample(done.calls * batch, await self.count(before), done.seconds, done.latencies)

    async def call_nobody(self, writers: int, batch: int, seconds: float) -> Sample:
        """Do the same where nothing is stored: what one process can call at most."""
        found = 0

        async def forget(_stream: str, events: Sequence[NewEvent], _expected: int) -> None:
            nonlocal found
            found += len(events)
            await asyncio.sleep(0)  # the others' turn, as after each append

        done = await self._call(writers, batch, seconds, forget)
        return Sample(done.calls * batch, found, done.seconds, done.latencies)

    async def _call(self, writers: int, batch: int, seconds: float, append: Append) -> load.Load:
        places: dict[int, tuple[str, int]] = {}

        async def call(writer: int) -> None:
            stream, version = places.get(writer, ("", 0))
            if not stream or version + batch > STREAM_LENGTH:
                stream, version = f"order-{uuid.uuid4()}", 0
            await append(stream, self.events(batch), version)
            places[writer] = stream, version + batch

        return await load.tasks(writers, seconds, call)

    async def append_ready(self, writers: int) -> Sample:
        """Send what group commit sends for so many writers of one event, made beforehand: the server's share alone."""
        size = writers // group.LANES
        ready = [self._batches(size) for _ in range(group.LANES)]
        before = await self.store.head()
        async with AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(await pg.connect(self.store.options)) for _ in ready]

            async def send(conn: pg.StoreConnection, batches: list[list[object]]) -> None:
                lane = Lane(conn, timeout=self.store.options.timeout, prepare=True)
                for parameters in batches:
                    await lane.row(self.store.sql.append_events, parameters)
                lane.leave()

            begun = time.perf_counter()
            await asyncio.gather(*map(send, connections, ready))
            seconds = time.perf_counter() - begun
        return Sample(len(ready) * READY_BATCHES * size, await self.count(before), seconds)

    def _batches(self, size: int) -> list[list[object]]:
        encoder = Encoder(self.store.sql.payload, self.store.payloads.writing)
        made, streams = [], [""] * size
        for turn in range(READY_BATCHES):
            version = turn % STREAM_LENGTH
            if not version:
                streams = [f"order-{uuid.uuid4()}" for _ in range(size)]
            units = [encoder.unit_of_one(stream, self.events(1), version) for stream in streams]
            made.append(encoder.events_parameters([unit.appends[0] for unit in units]))
        return made

    async def append_new(self, number: int) -> None:
        """Append so many events to a new stream."""
        await self.store.append(f"order-{uuid.uuid4()}", self.events(number), NO_STREAM)

    async def append_called(self, called: float) -> None:
        """Append one event that says when this was called."""
        await self.store.append("called", [NewEvent(TYPE, {**payload(next(self._numbers)), "called": called})])

    async def import_events(self, number: int) -> Sample:
        """Import so many events, in streams of a hundred; making them is part of the time."""
        before = await self.store.head()
        history = uuid.uuid4().hex[:8]
        events = (
            ImportedEvent(f"imported-{history}-{n // STREAM_LENGTH}", NewEvent(TYPE, payload(n))) for n in range(number)
        )
        begun = time.perf_counter()
        await self.store.import_events(events)
        seconds = time.perf_counter() - begun
        return Sample(number, await self.count(before), seconds)

    async def follow(self, subscriptions: int, batch: int, seconds: float) -> Sample:
        """Append again and again, each time until all transient subscriptions have it."""
        found = [0] * subscriptions
        wanted, everybody = 0, asyncio.Event()

        async def receive(number: int, batches: AsyncIterator[Sequence[RecordedEvent]]) -> None:
            async for events in batches:
                found[number] += len(events)
                if min(found) >= wanted:
                    everybody.set()

        async def call(_: int) -> None:
            nonlocal wanted
            wanted += batch
            everybody.clear()
            await self.append_new(batch)
            await everybody.wait()

        async with AsyncExitStack() as stack:
            following = [
                asyncio.create_task(receive(number, await stack.enter_async_context(self.store.subscribe(ALL))))
                for number in range(subscriptions)
            ]
            done = await load.tasks(1, seconds, call)
            for task in following:
                task.cancel()
            await asyncio.wait(following)
        return Sample(done.calls * batch * subscriptions, sum(found), done.seconds, done.latencies)

    async def read(
        self, streams: Sequence[str], length: int, readers: int, seconds: float, *, look: bool = False
    ) -> Sample:
        """Let readers read whole streams for so long, and ``look`` once at each event."""
        found = [0] * readers
        turns = [load.turn(streams, reader) for reader in range(readers)]

        async def call(reader: int) -> None:
            events = await self.store.read(next(turns[reader]), limit=length)
            if look:
                for event in events:
                    _look(event)
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


def _look(event: RecordedEvent) -> object:
    """Ask for whatever may have been left as it came."""
    return event.id, event.type, event.position, event.version, event.created_at, event.raw_data


async def make_schema(url: str) -> None:
    """Make the store's tables."""
    await schema.migrate(StoreOptions(url=url))


@asynccontextmanager
async def store(url: str, redis_url: str | None = None) -> AsyncIterator[Store]:
    """Open the store on a database that has its tables."""
    async with connect(url, redis_url=redis_url) as opened:
        yield Store(url, opened)


@asynccontextmanager
async def empty_store(bench: Bench) -> AsyncIterator[Store]:
    """Open a store on a database of its own."""
    async with bench.database() as url:
        await make_schema(url)
        async with store(url) as opened:
            yield opened
