"""The Python library ``eventsourcing``: its Postgres application recorder, as its own documentation sets it up.

Its database functions are on, which makes its appends fastest (and takes no lock on the table, so that its order is not
the order of commits). Ten connections, a thread for each caller.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore

from benchmarks import load
from benchmarks.bench import Bench
from benchmarks.measure import Sample
from benchmarks.payload import STREAM_LENGTH, TYPE, encoded

NAME = "eventsourcing"
POOL_SIZE = 10
WAIT_SECONDS = 120.0


class Recorder:
    """The recorder on a database of its own."""

    def __init__(self, datastore: Any, recorder: Any) -> None:
        self._datastore = datastore
        self.recorder = recorder
        self._numbers = itertools.count()

    def count(self) -> int:
        """Count the stored events."""
        with self._datastore.get_connection() as conn:
            row = conn.execute("SELECT count(*) AS counted FROM stored_events").fetchone()
        return int(row["counted"])

    def events(self, stream: uuid.UUID, first: int, number: int) -> list[StoredEvent]:
        """Return new events of a stream, encoded."""
        return [
            StoredEvent(stream, version, TYPE, encoded(next(self._numbers))) for version in range(first, first + number)
        ]

    def fill(self, streams: int, length: int) -> list[uuid.UUID]:
        """Store so many streams of so many events; returns their names."""
        names = [uuid.uuid4() for _ in range(streams)]
        for name in names:
            self.recorder.insert_events(self.events(name, 1, length))
        return names

    async def append(self, writers: int, batch: int, seconds: float) -> Sample:
        """Let writers append for so long, each to streams of its own."""
        before = self.count()
        places: dict[int, tuple[uuid.UUID, int]] = {}

        def call(writer: int) -> None:
            stream, version = places.get(writer, (None, 0))
            if stream is None or version + batch > STREAM_LENGTH:
                stream, version = uuid.uuid4(), 0
            self.recorder.insert_events(self.events(stream, version + 1, batch))
            places[writer] = stream, version + batch

        done = await load.threads(writers, seconds, call)
        return Sample(done.calls * batch, self.count() - before, done.seconds, done.latencies)

    async def read(self, streams: Sequence[uuid.UUID], length: int, readers: int, seconds: float) -> Sample:
        """Let readers read whole streams for so long."""
        found = [0] * readers
        turns = [load.turn(streams, reader) for reader in range(readers)]

        def call(reader: int) -> None:
            found[reader] += len(self.recorder.select_events(next(turns[reader])))

        done = await load.threads(readers, seconds, call)
        return Sample(done.calls * length, sum(found), done.seconds, done.latencies)

    async def read_everything(self, page: int, events: int) -> Sample:
        """Read all notifications once, a page at a time."""
        return await asyncio.to_thread(self._read_everything, page, events)

    def _read_everything(self, page: int, events: int) -> Sample:
        found, last = 0, 0
        begun = time.perf_counter()
        while notifications := self.recorder.select_notifications(last, page, inclusive_of_start=False):
            for notification in notifications:
                found += 1
                last = notification.id
        return Sample(events, found, time.perf_counter() - begun)


@asynccontextmanager
async def recorder(bench: Bench) -> AsyncIterator[Recorder]:
    """Open the recorder on an empty database."""
    async with bench.database() as url:
        parts = urlsplit(url)
        datastore = PostgresDatastore(
            dbname=parts.path.lstrip("/"),
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 5432,
            user=unquote(parts.username or "postgres"),
            password=unquote(parts.password or ""),
            pool_size=POOL_SIZE,
            connect_timeout=WAIT_SECONDS,
            enable_db_functions=True,
        )
        with datastore:
            made = PostgresApplicationRecorder(datastore)
            made.create_table()
            yield Recorder(datastore, made)
