"""The Python library ``eventsourcing``: its Postgres application recorder, as its own documentation sets it up.

Its database functions are on, which makes its appends fastest (and takes no lock on the table, so that its order is not
the order of commits). With them off it locks the table, which gives that order. Ten connections, a thread for each
caller.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore

from benchmarks import load
from benchmarks.bench import Bench
from benchmarks.measure import Sample
from benchmarks.payload import STREAM_LENGTH, TYPE, encoded, payload

NAME, ORDERED = "eventsourcing", "eventsourcing, in commit order"
POOL_SIZE = 10
WAIT_SECONDS = 120.0

_LISTENING = """
SELECT count(*) AS listening FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE 'LISTEN %%' AND query_start > %s
"""
_NOW = "SELECT clock_timestamp() AS now"


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

    async def read(
        self, streams: Sequence[uuid.UUID], length: int, readers: int, seconds: float, *, look: bool = False
    ) -> Sample:
        """Let readers read whole streams for so long, and ``look`` once at each event."""
        found = [0] * readers
        turns = [load.turn(streams, reader) for reader in range(readers)]

        def call(reader: int) -> None:
            events = self.recorder.select_events(next(turns[reader]))
            if look:
                for event in events:
                    _look(event)
            found[reader] += len(events)

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

    async def subscribe(self, events: int) -> Sample:
        """Let a subscription catch up from the beginning."""
        return await asyncio.to_thread(self._subscribe, events)

    def _subscribe(self, events: int) -> Sample:
        found = 0
        begun = time.perf_counter()
        with self.recorder.subscribe() as subscription:
            for _ in subscription:
                found += 1
                if found == events:
                    break
            seconds = time.perf_counter() - begun
        return Sample(events, found, seconds)

    async def follow(self, subscriptions: int, batch: int, seconds: float) -> Sample:
        """Append again and again, each time until the threads of all subscriptions have it."""
        return await asyncio.to_thread(self._follow, subscriptions, batch, seconds)

    def _follow(self, subscriptions: int, batch: int, seconds: float) -> Sample:
        everybody = threading.Barrier(subscriptions + 1, timeout=WAIT_SECONDS)
        found = [0] * subscriptions
        latencies = []

        def receive(number: int, subscription: Iterable[Any]) -> None:
            for _ in subscription:
                found[number] += 1
                if found[number] % batch == 0:
                    everybody.wait()

        # Each of its subscriptions keeps a connection for itself.
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(subscriptions))
            after, since = self.recorder.max_notification_id(), self._now()
            opened = [stack.enter_context(self.recorder.subscribe(after)) for _ in range(subscriptions)]
            self._until_listening(subscriptions, since)
            for number, subscription in enumerate(opened):
                pool.submit(receive, number, subscription)
            begun = now = time.perf_counter()
            while now - begun < seconds:
                self.recorder.insert_events(self.events(uuid.uuid4(), 1, batch))
                everybody.wait()
                now, before = time.perf_counter(), now
                latencies.append(now - before)
        events = len(latencies) * batch * subscriptions
        return Sample(events, sum(found), now - begun, latencies)

    def _now(self) -> datetime:
        with self._datastore.get_connection() as conn:
            now: datetime = conn.execute(_NOW).fetchone()["now"]
        return now

    def _until_listening(self, subscriptions: int, since: datetime) -> None:
        """Wait until so many have begun to listen: what is appended before is seen only with the next append."""
        deadline = time.monotonic() + WAIT_SECONDS
        with self._datastore.get_connection() as conn:
            while conn.execute(_LISTENING, [since]).fetchone()["listening"] < subscriptions:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{subscriptions} subscriptions do not all listen")
                time.sleep(0.005)

    async def live(self, seconds: float, rate: int) -> Sample:
        """Follow what is appended meanwhile at a rate, in threads of this process."""
        return await asyncio.to_thread(self._live, seconds, rate)

    def _live(self, seconds: float, rate: int) -> Sample:
        number = int(seconds * rate)
        latencies: list[float] = []
        since = self._now()
        with self.recorder.subscribe(self.recorder.max_notification_id()) as subscription:
            self._until_listening(1, since)

            def follow() -> None:
                for notification in subscription:
                    latencies.append(time.monotonic() - orjson.loads(notification.state)["called"])
                    if len(latencies) == number:
                        break

            with ThreadPoolExecutor(POOL_SIZE) as pool:
                following = pool.submit(follow)
                begun = time.monotonic()
                for turn in range(number):
                    time.sleep(max(0.0, begun + turn / rate - time.monotonic()))
                    pool.submit(self._append_called, time.monotonic())
                following.result()
        return Sample(number, len(latencies), time.monotonic() - begun, latencies)

    def _append_called(self, called: float) -> None:
        state = orjson.dumps({**payload(next(self._numbers)), "called": called})
        self.recorder.insert_events([StoredEvent(uuid.uuid4(), 1, TYPE, state)])


def _look(event: StoredEvent) -> object:
    """Ask for all it has: neither an id of its own, nor a position, nor a time."""
    return event.originator_id, event.topic, event.originator_version, event.state


@asynccontextmanager
async def recorder(bench: Bench, pool_size: int = POOL_SIZE, *, ordered: bool = False) -> AsyncIterator[Recorder]:
    """Open the recorder on an empty database; ``ordered`` turns its database functions off."""
    async with bench.database() as url:
        parts = urlsplit(url)
        datastore = PostgresDatastore(
            dbname=parts.path.lstrip("/"),
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 5432,
            user=unquote(parts.username or "postgres"),
            password=unquote(parts.password or ""),
            pool_size=pool_size,
            connect_timeout=WAIT_SECONDS,
            enable_db_functions=not ordered,
        )
        with datastore:
            made = PostgresApplicationRecorder(datastore)
            made.create_table()
            yield Recorder(datastore, made)
