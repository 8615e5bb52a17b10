"""What the server allows: COPY into the store's own table, and a plain select of the store's own rows.

No order, no checks, no outcome for each caller: nothing that keeps promises can be faster than this in one process.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.adapt import Buffer, Loader
from psycopg.pq import Format
from psycopg_pool import ConnectionPool

from benchmarks import load
from benchmarks.bench import Bench
from benchmarks.candidates import headwater
from benchmarks.measure import Sample
from benchmarks.payload import STREAM_LENGTH, TYPE, encoded
from headwater.storage.model import new_event_id

COPY, COPY_BYTES, SELECT = "COPY", "COPY of ready bytes", "raw psycopg"
INSERT, INSERT_BARE = "INSERT", "INSERT without indexes"
ROWS_A_COPY = 10_000

_CLONE = 'CREATE TABLE "copied" (LIKE "headwater"."events" INCLUDING ALL)'
_CLONE_BARE = 'CREATE TABLE "copied" (LIKE "headwater"."events" INCLUDING DEFAULTS)'
_COPY = 'COPY "copied" ("position", "stream", "version", "event_id", "type", "data", "created_at") FROM STDIN '
_COPY_BINARY = _COPY + "(FORMAT binary)"
_COUNT = 'SELECT count(*) FROM "copied"'
_INSERT = (
    'INSERT INTO "copied" ("position", "stream", "version", "event_id", "type", "data", "created_at") '
    'SELECT "position", "stream", "version", "event_id", "type", "data"::json, "created_at" '
    "FROM unnest(%b::bigint[], %b::text[], %b::bigint[], %b::uuid[], %b::text[], %b::text[], %b::timestamptz[]) "
    'AS "new" ("position", "stream", "version", "event_id", "type", "data", "created_at")'
)
# JSON goes over the wire as the bytes it is: "bytea" sends them as they are.
_TYPES = ["int8", "text", "int8", "uuid", "text", "bytea", "timestamptz"]
_SELECT = (
    'SELECT "position", "stream", "version", "event_id", "type", "data", "metadata", "causation_id", "correlation_id", '
    '"created_at", "tags", "schema_version" FROM "headwater"."events" WHERE "stream" = %s ORDER BY "version" LIMIT %s'
)
_SELECT_PAGE = (
    'SELECT "position", "stream", "version", "event_id", "type", "data", "metadata", "causation_id", "correlation_id", '
    '"created_at", "tags", "schema_version" FROM "headwater"."events" '
    'WHERE "position" > %s ORDER BY "position" LIMIT %s'
)


class _JsonAsBytes(Loader):
    """Leaves payloads as they come, as everybody else does."""

    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


class Table:
    """A table like the store's events table, in a database of its own."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        self._numbers = itertools.count(1)

    def count(self) -> int:
        """Count the rows."""
        return int(self._conn.execute(_COUNT).fetchall()[0][0])

    def rows(self, number: int) -> Iterator[tuple[Any, ...]]:
        """Make rows as the store would write them, with their ids and payloads."""
        now = datetime.now(UTC)
        for position in itertools.islice(self._numbers, number):
            stream, place = divmod(position - 1, STREAM_LENGTH)
            yield position, f"order-{stream}", place + 1, new_event_id(), TYPE, encoded(position), now

    def copy(self, number: int) -> None:
        """Write so many rows by one COPY and commit them."""
        with self._conn.cursor() as cursor, cursor.copy(_COPY_BINARY) as copy:
            copy.set_types(_TYPES)
            for row in self.rows(number):
                copy.write_row(row)

    async def fill(self, seconds: float) -> Sample:
        """Copy for so long, with a commit after each 10,000 rows; making the rows is part of the time."""
        before = self.count()
        done = await load.threads(1, seconds, lambda _: self.copy(ROWS_A_COPY))
        # How long 10,000 rows take says nothing beside calls of other sizes: only the rate is told.
        return Sample(done.calls * ROWS_A_COPY, self.count() - before, done.seconds)

    async def insert(self, batch: int, seconds: float) -> Sample:
        """Let one caller insert so many rows by one statement and commit them, again and again."""
        before = self.count()
        done = await load.threads(1, seconds, lambda _: self._insert(batch))
        return Sample(done.calls * batch, self.count() - before, done.seconds, done.latencies)

    def _insert(self, number: int) -> None:
        *columns, payloads, times = zip(*self.rows(number), strict=True)
        data = [payload.decode() for payload in payloads]
        self._conn.execute(_INSERT, [*map(list, columns), data, list(times)])

    async def copy_at_once(self, number: int) -> Sample:
        """Write so many rows by one COPY; making them is part of the time."""
        before = self.count()
        begun = time.perf_counter()
        await asyncio.to_thread(self.copy, number)
        seconds = time.perf_counter() - begun
        return Sample(number, self.count() - before, seconds)

    async def copy_bytes(self, number: int) -> Sample:
        """Copy so many rows that were made beforehand: the server's share alone."""
        return await asyncio.to_thread(self._copy_bytes, number)

    def _copy_bytes(self, number: int) -> Sample:
        before = self.count()
        blocks = ["".join(_line(row) for row in self.rows(1000)).encode() for _ in range(number // 1000)]
        begun = time.perf_counter()
        with self._conn.cursor() as cursor, cursor.copy(_COPY) as copy:
            for block in blocks:
                copy.write(block)
        seconds = time.perf_counter() - begun
        return Sample(len(blocks) * 1000, self.count() - before, seconds)


def _line(row: Sequence[Any]) -> str:
    position, stream, version, event_id, kind, data, now = row
    return f"{position}\t{stream}\t{version}\t{event_id}\t{kind}\t{data.decode()}\t{now.isoformat()}\n"


class Rows:
    """The store's own rows, read by nothing but the driver."""

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        self._pool = pool

    async def read(self, streams: Sequence[str], length: int, readers: int, seconds: float) -> Sample:
        """Let readers select whole streams for so long."""
        found = [0] * readers
        turns = [load.turn(streams, reader) for reader in range(readers)]

        def call(reader: int) -> None:
            with self._pool.connection() as conn:
                cursor = conn.cursor(binary=True)
                found[reader] += len(cursor.execute(_SELECT, (next(turns[reader]), length), prepare=True).fetchall())

        done = await load.threads(readers, seconds, call)
        return Sample(done.calls * length, sum(found), done.seconds, done.latencies)

    async def read_everything(self, page: int, events: int) -> Sample:
        """Select everything once, a page at a time."""
        return await asyncio.to_thread(self._read_everything, page, events)

    def _read_everything(self, page: int, events: int) -> Sample:
        found, last = 0, 0
        begun = time.perf_counter()
        with self._pool.connection() as conn:
            cursor = conn.cursor(binary=True)
            while rows := cursor.execute(_SELECT_PAGE, (last, page), prepare=True).fetchall():
                for row in rows:
                    found += 1
                    last = row[0]
        return Sample(events, found, time.perf_counter() - begun)


@asynccontextmanager
async def table(bench: Bench, *, indexes: bool = True) -> AsyncIterator[Table]:
    """Make an empty copy of the events table in a database of its own."""
    async with bench.database() as url:
        await headwater.make_schema(url)
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(_CLONE if indexes else _CLONE_BARE)
            yield Table(conn)


@asynccontextmanager
async def rows(url: str, connections: int) -> AsyncIterator[Rows]:
    """Open connections to a store's database."""

    def configure(conn: psycopg.Connection[Any]) -> None:
        conn.adapters.register_loader("json", _JsonAsBytes)

    settings = {"autocommit": True}
    with ConnectionPool(url, min_size=connections, max_size=connections, kwargs=settings, configure=configure) as pool:
        pool.wait()
        yield Rows(pool)
