"""The event store on PostgreSQL: the whole protocol as one thin façade over the modules beside it.

Holds the pool and the append queue, checks arguments, and decides nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

import psycopg

from headwater.storage.checks import check_filter, check_many, check_name, check_number, check_range, check_time
from headwater.storage.codec import Codec
from headwater.storage.encryption.keys import KeyStore
from headwater.storage.encryption.options import Encryption
from headwater.storage.errors import InvalidArgument, StoreClosed
from headwater.storage.event_types import EventTypes
from headwater.storage.making import Making
from headwater.storage.model import (
    ALL,
    ANY,
    EVERYTHING,
    MAX_GATE,
    MAX_SESSION,
    AppendCondition,
    AppendResult,
    EventPage,
    Expected,
    Filter,
    Gate,
    NewEvent,
    RecordedEvent,
    StreamAppend,
)
from headwater.storage.options import StoreOptions
from headwater.storage.payloads import Payloads
from headwater.storage.postgres import appending, importing, reading, schema, waiting
from headwater.storage.postgres.announce import Announce, Announcer
from headwater.storage.postgres.archived import ArchivedReads, Missing
from headwater.storage.postgres.archiving import RangeStatus, open_archive
from headwater.storage.postgres.calls import StreamCalls
from headwater.storage.postgres.connect import Connection, Pool, connect, row_cursor
from headwater.storage.postgres.encoding import Encoder, Unit
from headwater.storage.postgres.failures import translated
from headwater.storage.postgres.group import GroupCommit
from headwater.storage.postgres.import_rows import ImportBatch
from headwater.storage.postgres.keys import PostgresKeyStore
from headwater.storage.postgres.lanes import Gates, Lanes
from headwater.storage.postgres.pools import make_pool
from headwater.storage.postgres.resending import until_known
from headwater.storage.postgres.statements import Statements
from headwater.storage.transient import Wakeups
from headwater.storage.waiting import Standing, Trouble, wait_for


class PostgresEventStore(StreamCalls):
    """An :class:`~headwater.storage.store.EventStore` on PostgreSQL. Make it with :meth:`open`."""

    def __init__(
        self,
        options: StoreOptions,
        pool: Pool,
        sql: Statements,
        payloads: Callable[[KeyStore], Payloads],
        announcer: Announcer | None,
        *,
        own_pool: bool = True,
    ) -> None:
        self.options = options
        self.sql = sql
        self.wakeups = Wakeups()
        self._pool = pool
        self._own_pool = own_pool
        self.payloads = payloads(PostgresKeyStore(self.connection, sql))
        self._encoder = Encoder(sql.payload, self.payloads.writing)
        self._announcer = announcer
        self._archived = ArchivedReads(sql, options.archive)
        # Behind a pooler the server's sessions are not ours.
        gates = Gates(sql.open_gates) if announcer is not None and not options.through_pooler else None
        self._lanes = Lanes(pool, timeout=options.timeout, prepare=not options.through_pooler, gates=gates)
        self._group = GroupCommit(self._send, lanes=1 if options.pool_size == 1 else 2)
        self._closed = False

    def __repr__(self) -> str:
        return f"<PostgresEventStore {self.options!r}{' closed' if self._closed else ''}>"

    @classmethod
    async def open(
        cls,
        url: str | None = None,
        *,
        options: StoreOptions | None = None,
        codec: Codec | str | None = None,
        types: EventTypes | str | None = None,
        encryption: Encryption | str | None = None,
        announce: Announce | None = None,
        migrate: bool = False,
        pool: Pool | None = None,
        **settings: Any,
    ) -> Self:
        """Connect and check the schema; ``settings`` are the fields of StoreOptions.

        ``codec``, ``types`` and ``encryption``, themselves or by their import paths, say how payloads are written and
        read; without them, the options do. ``announce`` is told the new head after appends, for hints, and where
        readers can wait for the next one: a gate or None. ``migrate=True`` applies pending migrations first.
        ``pool`` is another store's (``store.pool``) on the same database: its connections are shared, and stay open
        when this store is closed.
        Raises ConfigurationError, ImportPathError, SchemaMissing, SchemaOutdated, StoreUnavailable.
        """
        options = options or StoreOptions.read(url, **settings)
        sql = Statements(options.schema)
        making = Making.of(options, codec, types, encryption)
        if migrate:
            await schema.migrate(options)
        own_pool = pool is None
        pool = make_pool(options) if pool is None else pool
        try:
            with translated():
                async with asyncio.timeout(options.timeout):
                    # One connection of its own first: it says at once why there is none, which the pool never does.
                    async with await connect(options) as conn:
                        payload = await schema.check(conn, sql)
                        partitioned = await schema.is_partitioned(conn, sql)
                    if own_pool:
                        await pool.open()
        except BaseException:
            if own_pool:
                await pool.close()
            raise
        announcer = None if announce is None else Announcer(announce)
        sql = Statements(options.schema, payload, partitioned=partitioned)
        return cls(
            options, pool, sql, partial(making.payloads, binary=payload == "bytea"), announcer, own_pool=own_pool
        )

    async def close(self) -> None:
        """Finish the appends under way, then close every connection. Safe to repeat."""
        self._closed = True
        async with AsyncExitStack() as closing:  # all of it, also when whoever closes is cancelled while appends end
            if self._own_pool:
                closing.push_async_callback(self._pool.close)
            if self._announcer is not None:
                closing.push_async_callback(self._announcer.close)
            closing.push_async_callback(self._lanes.close)
            await self._group.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def pool(self) -> Pool:
        """The connections of this store, for the durable parts that share them."""
        return self._pool

    @asynccontextmanager
    async def connection(self, conn: Connection | None = None) -> AsyncIterator[Connection]:
        """Lend a connection of the pool, or the caller's own; driver errors leave it as the store's errors."""
        if self._closed:
            raise StoreClosed
        if conn is not None and not isinstance(conn, psycopg.AsyncConnection):
            raise InvalidArgument("conn", f"must be an AsyncConnection of psycopg, not {type(conn).__name__}")
        with translated():
            async with asyncio.timeout(self.options.timeout):
                if conn is not None:
                    yield conn
                else:
                    async with self._pool.connection() as own:
                        yield own

    async def append(
        self,
        stream: str,
        events: Sequence[NewEvent],
        expected_version: Expected = ANY,
        *,
        condition: AppendCondition | None = None,
        created_at: datetime | None = None,
        conn: Connection | None = None,
    ) -> AppendResult:
        if not self.payloads.as_given:
            [(_, events, _)] = await self.payloads.prepare([StreamAppend(stream, events, expected_version)])
        unit = self._encoder.unit_of_one(stream, events, expected_version, created_at, condition)
        del events  # only their encoded form has to wait
        [result] = await self._append(unit, conn)
        return result

    async def append_to_many(
        self,
        appends: Sequence[StreamAppend],
        *,
        condition: AppendCondition | None = None,
        created_at: datetime | None = None,
        conn: Connection | None = None,
    ) -> list[AppendResult]:
        appends = await self.payloads.prepare(appends)
        unit = self._encoder.unit(appends, created_at, condition)
        del appends
        return await self._append(unit, conn)

    async def _append(self, unit: Unit, conn: Connection | None) -> list[AppendResult]:
        if conn is None:
            return await self._group.append(unit)
        async with self.connection(conn):
            [outcome] = await appending.write(conn, self.sql, self._encoder, [unit], look_first=True)
        if isinstance(outcome, list):
            return outcome
        raise outcome

    async def append_at_commit(
        self,
        stream: str,
        events: Sequence[NewEvent],
        expected_version: Expected = ANY,
        *,
        conn: Connection,
        created_at: datetime | None = None,
    ) -> None:
        """Append when the caller's transaction commits, as its last act: other appends do not wait for it meanwhile.

        Nothing is checked before. When the append is refused, the caller's COMMIT fails and with it the transaction:
        SQLSTATE HW409 for a wrong version, HW410 for a deleted stream, 23505 for an event that is stored already.
        """
        appends = await self.payloads.prepare([StreamAppend(stream, events, expected_version)])
        unit = self._encoder.unit(appends, created_at)
        async with self.connection(conn) as conn:
            await row_cursor(conn).execute(self.sql.append_at_commit, self._encoder.parameters([unit]), binary=True)

    async def _send(self, units: Sequence[Unit]) -> list[appending.Outcome]:
        lane = await self._lanes.take()
        before = lane.gate
        try:
            outcomes = await appending.write(lane, self.sql, self._encoder, units)
            gate = None if lane.gate is None or lane.gate == before else Gate(lane.session, lane.gate)
        finally:
            await self._lanes.leave(lane)
        written = [outcome[-1].last_position for outcome in outcomes if type(outcome) is list]
        self._head_moved(max(written, default=0), gate)
        return outcomes

    def _head_moved(self, head: int, gate: Gate | None = None) -> None:
        self.wakeups.moved()
        if self._announcer is not None:
            self._announcer.head_moved(head, gate)

    async def import_events(self, events: importing.Events, *, batch_size: int = importing.BATCH) -> int:
        """Append many events to many streams, in the given order and with their own times; returns how many were new.

        Each batch is one transaction. An import that was interrupted may be run again with the same ids and batch
        size: what is stored is passed over. Raises what append raises; the batches before are written then.
        """
        check_number("batch_size", batch_size, 1, 50_000)
        check_many("events", events)
        if self._closed:
            raise StoreClosed
        return await importing.import_events(
            self._encoder, self.payloads.prepare_import(events), batch_size, self._write_batch
        )

    async def _write_batch(self, batch: ImportBatch) -> int:
        async def send() -> int:
            async with self._pool.connection() as conn, asyncio.timeout(self.options.timeout):
                written = await importing.write(conn, self.sql, self._encoder, batch)
            self._head_moved(written.head)
            return written.events

        return await until_known(send)

    async def archive(self, before: int | datetime, *, readers_restarted: bool = False) -> list[RangeStatus]:
        """Move the ranges whose every event stands before a position or time into files of the archive's folder.

        See :meth:`headwater.storage.postgres.archiving.Archivist.archive`, and ``open_archive`` for the rest.
        """
        async with open_archive(self.options) as archivist:
            return await archivist.archive(before, readers_restarted=readers_restarted)

    async def _opened(self, events: list[RecordedEvent]) -> list[RecordedEvent]:
        return events if self.payloads.plain else list(await self.payloads.open(events))

    async def read(
        self,
        stream: str,
        *,
        start: int | None = None,
        limit: int = 1000,
        backward: bool = False,
        conn: Connection | None = None,
    ) -> list[RecordedEvent]:
        check_name("stream", stream)
        check_range(start, limit)

        async def look() -> tuple[list[RecordedEvent], Missing]:
            async with self.connection(conn) as lent:
                read = partial(reading.read, lent, self.sql, stream, start, limit, backward)
                return await self._archived.read(lent, stream, start, limit, backward, EVERYTHING, read)

        # Files are read, and keys are fetched, without holding a connection, and not against its time.
        add = partial(self._archived.complete, limit, EVERYTHING)
        return await self._opened(await self._archived.whole(look, add))

    async def read_all(
        self,
        *,
        start: int | None = None,
        limit: int = 1000,
        backward: bool = False,
        where: Filter = EVERYTHING,
        conn: Connection | None = None,
    ) -> list[RecordedEvent]:
        check_filter(where)
        check_range(start, limit)

        async def look() -> tuple[list[RecordedEvent], Missing]:
            async with self.connection(conn) as lent:
                read = partial(reading.read_all, lent, self.sql, start, limit, backward, where)
                return await self._archived.read(lent, ALL, start, limit, backward, where, read)

        add = partial(self._archived.complete, limit, where)
        return await self._opened(await self._archived.whole(look, add))

    async def stream(
        self, stream: str, *, start: int | None = None, backward: bool = False, page_size: int = 1000
    ) -> AsyncIterator[RecordedEvent]:
        check_number("page_size", page_size, 1)
        while page := await self.read(stream, start=start, limit=page_size, backward=backward):
            for event in page:
                yield event
            start = page[-1].number + (-1 if backward else 1)

    async def stream_all(
        self,
        *,
        start: int | None = None,
        backward: bool = False,
        where: Filter = EVERYTHING,
        page_size: int = 1000,
    ) -> AsyncIterator[RecordedEvent]:
        check_number("page_size", page_size, 1)
        while page := await self.read_all(start=start, limit=page_size, backward=backward, where=where):
            for event in page:
                yield event
            start = page[-1].number + (-1 if backward else 1)

    async def read_page(
        self,
        source: str,
        after: int,
        limit: int,
        *,
        where: Filter = EVERYTHING,
        conn: Connection | None = None,
    ) -> EventPage:
        page = await self.read_stored_page(source, after, limit, where=where, conn=conn)
        return page if self.payloads.plain else replace(page, events=await self.payloads.open(page.events))

    async def read_stored_page(
        self,
        source: str,
        after: int,
        limit: int,
        *,
        where: Filter = EVERYTHING,
        conn: Connection | None = None,
    ) -> EventPage:
        """Read a page whose events nobody has opened: for readers that keep them, and open them when they are due."""
        check_name("source", source)
        check_number("after", after)
        check_number("limit", limit, 1)
        check_filter(where)

        async def look() -> tuple[EventPage, Missing]:
            async with self.connection(conn) as lent:
                read = partial(reading.read_page, lent, self.sql, source, after, limit, where)
                return await self._archived.read_page(lent, source, after, limit, where, read)

        return await self._archived.whole(look, partial(self._archived.complete_page, after, limit, where))

    async def page_behind(self, gate: Gate, after: int, limit: int, *, wait: float = reading.LONGEST_WAIT) -> EventPage:
        """Read the store-wide order after a position as soon as the next append of the gate's session is committed.

        The events are as they are stored: nobody has opened them. ``gate`` came with a hint. Waits at most ``wait``
        seconds for that append to begin, and a moment for its end; then, or when the gate is not shut or no connection
        is to spare, gives an empty page or what is there: looking once more is up to the next hint.
        """
        check_number("session", gate.session, 0, MAX_SESSION)
        check_number("gate", gate.number, 0, MAX_GATE)
        check_number("after", after)
        check_number("limit", limit, 1)
        if self._closed:
            raise StoreClosed
        if not self._lanes.spare:
            return EventPage((), after, after)
        wait = min(wait, self.options.timeout / 2)
        with translated():
            lane = await self._lanes.take()
            try:
                page = await reading.page_behind(lane, self.sql, gate, after, limit, wait)
            finally:
                await self._lanes.leave(lane)
        if self.sql.partitioned and page.events and page.events[0].position != after + 1:
            # What is missing may be archived: the next look, which asks for that, finds it.
            return EventPage((), after, after)
        return page

    async def head(self) -> int:
        async with self.connection() as conn:
            return await reading.head(conn, self.sql)

    async def position_at(self, when: datetime) -> int:
        check_time("when", when)

        async def look() -> tuple[int, Missing]:
            async with self.connection() as conn:
                read = partial(reading.position_at, conn, self.sql, when)
                return await self._archived.position_at(conn, when, read)

        return await self._archived.whole(look, partial(self._archived.first_position, when))

    async def wait_for(self, subscription: str, position: int, timeout: float = 10.0) -> None:  # noqa: ASYNC109
        await wait_for(self._standings, self._trouble, subscription, position, timeout)

    async def _standings(self, subscription: str, position: int) -> Sequence[Standing]:
        async with self.connection() as conn:
            return await waiting.standings(conn, self.sql, subscription, position)

    async def _trouble(self, subscription: str, partition: int) -> Trouble:
        async with self.connection() as conn:
            return await waiting.trouble(conn, self.sql, subscription, partition)
