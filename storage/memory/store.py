"""The event store in memory: for users' tests, for simulations, and as the second opinion in ours.

Never saves anything. Refuses what the Postgres store refuses, with the same errors.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from headwater.storage.checks import (
    check_callable,
    check_expected,
    check_filter,
    check_flag,
    check_link_ids,
    check_listing_page,
    check_name,
    check_number,
    check_range,
    check_search,
    check_snapshot,
    check_sort,
    check_target,
    check_time,
)
from headwater.storage.codec import JSON, Codec
from headwater.storage.encryption.options import Encryption
from headwater.storage.errors import HardDeletesDisabled, InvalidArgument, StoreClosed, StoreUnavailable
from headwater.storage.event_types import EventTypes
from headwater.storage.filters import matches
from headwater.storage.memory import writing
from headwater.storage.memory.keys import MemoryKeyStore
from headwater.storage.memory.state import State
from headwater.storage.memory.transaction import MemoryTransaction
from headwater.storage.model import (
    ALL,
    ANY,
    EVERYTHING,
    MAX_BIGINT,
    AppendCondition,
    AppendResult,
    EventPage,
    Expected,
    Filter,
    NewEvent,
    RecordedEvent,
    Snapshot,
    StreamAppend,
    StreamInfo,
    StreamPage,
)
from headwater.storage.payloads import Payloads
from headwater.storage.postgres.encoding import Encoder
from headwater.storage.store import StreamSort
from headwater.storage.transient import Place, Wakeups, follow
from headwater.storage.waiting import Standing, Trouble, Watched, wait_for


class MemoryEventStore:
    """An :class:`~headwater.storage.store.EventStore` whose events end with the process."""

    def __init__(
        self,
        *,
        hard_deletes: bool = False,
        codec: Codec = JSON,
        types: EventTypes | None = None,
        encryption: Encryption | None = None,
        timeout: float = 15.0,
    ) -> None:
        if encryption is not None:
            encryption.masters()
        self._state = State()
        self._hard_deletes = hard_deletes
        self.payloads = Payloads(MemoryKeyStore(), codec=codec, types=types, encryption=encryption)
        self._timeout = timeout
        # It checks every part of an append; so both stores refuse the same.
        self._encoder = Encoder("json", self.payloads.writing)
        self._order = asyncio.Lock()
        self._closed = False
        self.wakeups = Wakeups()
        self.subscriptions: Callable[[str], Watched | None] = lambda _: None
        """Tells how far a subscription is; whoever runs subscriptions on this store sets it."""

    def __repr__(self) -> str:
        return f"<MemoryEventStore head={self._state.head}{' closed' if self._closed else ''}>"

    async def close(self) -> None:
        """Refuse every further call. Safe to repeat."""
        self._closed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MemoryTransaction]:
        """Enter a transaction, to be passed as ``conn``; an error that leaves the block undoes it."""
        transaction = MemoryTransaction()
        held = False
        try:
            yield transaction
            held = transaction.state is not None
            if transaction.state is not None:
                self._state = transaction.state
        except BaseException:
            held = transaction.state is not None
            transaction.roll_back()
            raise
        finally:
            if held:
                self._order.release()
        self.wakeups.moved()

    @asynccontextmanager
    async def _changing(self, conn: MemoryTransaction | None) -> AsyncIterator[State]:
        self._seen(conn)
        if conn is None:
            await self._take_order()
            try:
                yield self._state
            finally:
                self._order.release()
            self.wakeups.moved()
        else:
            if conn.state is None:
                await self._take_order()
                conn.state = self._state.copy()
            yield conn.state

    async def _take_order(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._order.acquire()
        except TimeoutError:
            raise StoreUnavailable("a transaction that has written has not ended in time") from None

    def _seen(self, conn: MemoryTransaction | None) -> State:
        if self._closed:
            raise StoreClosed
        if conn is not None and not isinstance(conn, MemoryTransaction):
            raise InvalidArgument("conn", f"must be a transaction of this store, not {type(conn).__name__}")
        return self._state if conn is None or conn.state is None else conn.state

    async def append(
        self,
        stream: str,
        events: Sequence[NewEvent],
        expected_version: Expected = ANY,
        *,
        condition: AppendCondition | None = None,
        created_at: datetime | None = None,
        conn: MemoryTransaction | None = None,
    ) -> AppendResult:
        """Append events to the end of a stream; see :meth:`EventStore.append`."""
        appends = [StreamAppend(stream, events, expected_version)]
        [result] = await self.append_to_many(appends, condition=condition, created_at=created_at, conn=conn)
        return result

    async def append_to_many(
        self,
        appends: Sequence[StreamAppend],
        *,
        condition: AppendCondition | None = None,
        created_at: datetime | None = None,
        conn: MemoryTransaction | None = None,
    ) -> list[AppendResult]:
        """Append to several streams; see :meth:`EventStore.append_to_many`."""
        appends = await self.payloads.prepare(appends)
        self._encoder.unit(appends, created_at, condition)
        async with self._changing(conn) as state:
            return writing.append(state, appends, created_at, condition, self.payloads.writing)

    async def link(
        self,
        stream: str,
        events: Sequence[RecordedEvent | uuid.UUID],
        expected_version: Expected = ANY,
        *,
        conn: MemoryTransaction | None = None,
    ) -> int:
        """Put stored events into a further stream; see :meth:`EventStore.link`."""
        check_target(stream, "link to")
        check_expected(expected_version)
        ids = check_link_ids(stream, events)
        async with self._changing(conn) as state:
            return writing.link(state, stream, ids, expected_version)

    async def read(
        self,
        stream: str,
        *,
        start: int | None = None,
        limit: int = 1000,
        backward: bool = False,
        conn: MemoryTransaction | None = None,
    ) -> list[RecordedEvent]:
        """Read a run of a stream, or of ALL; see :meth:`EventStore.read`."""
        check_name("stream", stream)
        check_range(start, limit)
        return list(await self.payloads.open(self._seen(conn).read(stream, start, limit, backward)))

    async def read_all(
        self,
        *,
        start: int | None = None,
        limit: int = 1000,
        backward: bool = False,
        where: Filter = EVERYTHING,
        conn: MemoryTransaction | None = None,
    ) -> list[RecordedEvent]:
        """Read a run of the store-wide order; see :meth:`EventStore.read_all`."""
        check_filter(where)
        check_range(start, limit)
        return list(await self.payloads.open(self._read_all(self._seen(conn), start, limit, where, backward)))

    def _read_all(
        self, state: State, start: int | None, limit: int, where: Filter, backward: bool = False
    ) -> list[RecordedEvent]:
        events = state.read(ALL, start, MAX_BIGINT if where else limit, backward)
        return [event for event in events if matches(where, event)][:limit]

    async def stream(
        self, stream: str, *, start: int | None = None, backward: bool = False, page_size: int = 1000
    ) -> AsyncIterator[RecordedEvent]:
        """Iterate lazily over a stream, or over ALL; see :meth:`EventStore.stream`."""
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
        """Iterate lazily over the store-wide order; see :meth:`EventStore.stream_all`."""
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
        conn: MemoryTransaction | None = None,
    ) -> EventPage:
        """Read the next events of a source; see :meth:`EventStore.read_page`."""
        page = await self.read_stored_page(source, after, limit, where=where, conn=conn)
        return replace(page, events=await self.payloads.open(page.events))

    async def read_stored_page(
        self,
        source: str,
        after: int,
        limit: int,
        *,
        where: Filter = EVERYTHING,
        conn: MemoryTransaction | None = None,
    ) -> EventPage:
        """Read a page whose events nobody has opened: for readers that keep them, and open them when they are due."""
        check_name("source", source)
        check_number("after", after)
        check_number("limit", limit, 1)
        check_filter(where)
        state = self._seen(conn)
        if source == ALL:
            head, stream_id = state.head, None
        else:
            stream = state.streams.get(source)
            if stream is None or stream.deleted_at is not None:
                return EventPage((), after, after, absent="missing" if stream is None else "deleted")
            head, stream_id = stream.version, stream.stream_id
        if head <= after:
            return EventPage((), after, after, stream_id)
        if source != ALL:
            looked_at = state.read(source, after + 1, limit, backward=False)
            read_to = looked_at[-1].number if len(looked_at) == limit else head
            found = [event for event in looked_at if matches(where, event)]
            return EventPage(found, read_to, head, stream_id)
        events = self._read_all(state, after + 1, limit, where)
        return EventPage(events, events[-1].position if len(events) == limit else head, head)

    async def head(self) -> int:
        """Return the highest position."""
        return self._seen(None).head

    async def position_at(self, when: datetime) -> int:
        """Return the position before the first event created at or after ``when``."""
        check_time("when", when)
        state = self._seen(None)
        return next((event.position - 1 for event in state.events.values() if event.created_at >= when), state.head)

    async def wait_for(self, subscription: str, position: int, timeout: float = 10.0) -> None:  # noqa: ASYNC109
        """Return once a subscription has settled a position: one that :attr:`subscriptions` knows."""
        await wait_for(self._standings, self._trouble, subscription, position, timeout)

    async def _standings(self, subscription: str, position: int) -> list[Standing]:
        state, watched = self._seen(None), self.subscriptions(subscription)
        if watched is None:
            return []
        target, deleted, same_stream = position, False, True
        if watched.source != ALL:
            stream = state.streams.get(watched.source)
            numbered = () if stream is None else zip(stream.events.numbers, stream.events.positions, strict=True)
            target = max((number for number, place in numbered if place <= position), default=0)
            deleted = stream is not None and stream.deleted_at is not None
            same_stream = watched.stream_id is None or (stream is not None and stream.stream_id == watched.stream_id)
        reached = state.head >= position
        return [Standing(0, watched.checkpoint, watched.source, deleted, target, same_stream, reached)]

    async def _trouble(self, subscription: str, partition: int) -> Trouble:  # noqa: ARG002  # there is one partition
        watched = self.subscriptions(subscription)
        return Trouble("deleted", None, 0) if watched is None else watched.trouble

    async def stream_info(self, stream: str, *, conn: MemoryTransaction | None = None) -> StreamInfo:
        """Describe a stream, or ALL; see :meth:`EventStore.stream_info`."""
        check_name("stream", stream)
        state = self._seen(conn)
        return state.all_info() if stream == ALL else state.live(stream).info()

    async def list_streams(
        self,
        *,
        search: str | None = None,
        sort: StreamSort = "stream_id",
        descending: bool = False,
        page: int = 1,
        page_size: int = 50,
        conn: MemoryTransaction | None = None,
    ) -> StreamPage:
        """List the streams; see :meth:`EventStore.list_streams`."""
        part, column = check_search(search), check_sort(sort)
        check_flag("descending", descending)
        check_listing_page(page, page_size)
        state = self._seen(conn)
        entries = [state.all_info(), *(stream.info() for stream in state.streams.values())]
        found = [info for info in entries if part in info.name]
        found.sort(key=lambda info: (_sort_key(info, column), info.stream_id), reverse=descending)
        # What has no such time comes last, in both directions.
        found.sort(key=lambda info: getattr(info, column) is None)
        first = (page - 1) * page_size
        pages = max(1, -(-len(found) // page_size))
        return StreamPage(found[first : first + page_size], page, page_size, len(found), pages)

    async def delete_stream(
        self,
        stream: str,
        expected_version: Expected = ANY,
        *,
        hard: bool = False,
        conn: MemoryTransaction | None = None,
    ) -> None:
        """Delete a stream softly or for good; see :meth:`EventStore.delete_stream`."""
        check_target(stream, "delete")
        check_expected(expected_version)
        if check_flag("hard", hard):
            self._check_hard_deletes(stream)
        async with self._changing(conn) as state:
            writing.delete_stream(state, stream, expected_version, hard)

    async def undelete_stream(self, stream: str, *, conn: MemoryTransaction | None = None) -> None:
        """Take a soft delete back; see :meth:`EventStore.undelete_stream`."""
        check_target(stream, "undelete")
        async with self._changing(conn) as state:
            writing.undelete_stream(state, stream)

    async def truncate_stream(self, stream: str, before: int, *, conn: MemoryTransaction | None = None) -> int:
        """Remove the beginning of a stream; see :meth:`EventStore.truncate_stream`."""
        check_target(stream, "truncate")
        check_number("before", before)
        self._check_hard_deletes(stream)
        async with self._changing(conn) as state:
            return writing.truncate_stream(state, stream, before)

    def _check_hard_deletes(self, stream: str) -> None:
        if not self._hard_deletes:
            raise HardDeletesDisabled(stream)

    async def record_snapshot(self, snapshot: Snapshot, *, conn: MemoryTransaction | None = None) -> None:
        """Save a snapshot; see :meth:`EventStore.record_snapshot`."""
        check_snapshot(snapshot)
        ready = await self.payloads.prepare_snapshot(snapshot)
        saved = replace(ready, created_at=snapshot.created_at or datetime.now(UTC))
        async with self._changing(conn) as state:
            state.snapshots.setdefault(snapshot.source, {})[snapshot.version] = saved

    async def read_snapshot(
        self, source: str, *, up_to: int | None = None, conn: MemoryTransaction | None = None
    ) -> Snapshot:
        """Return the newest snapshot; see :meth:`EventStore.read_snapshot`."""
        check_name("source", source)
        highest = MAX_BIGINT if up_to is None else check_number("up_to", up_to)
        return await self.payloads.open_snapshot(self._seen(conn).newest_snapshot(source, highest))

    async def delete_snapshots(
        self, source: str, *, before: int | None = None, conn: MemoryTransaction | None = None
    ) -> int:
        """Delete snapshots; see :meth:`EventStore.delete_snapshots`."""
        check_name("source", source)
        if before is not None:
            check_number("before", before)
        async with self._changing(conn) as state:
            saved = state.snapshots.get(source, {})
            gone = [version for version in saved if before is None or version < before]
            for version in gone:
                del saved[version]
            return len(gone)

    async def forget(self, subject: str) -> bool:
        """Destroy a subject's key; see :meth:`EventStore.forget`."""
        self._seen(None)
        return await self.payloads.forget(subject)

    def subscribe(
        self,
        source: str,
        *,
        selector: Callable[[RecordedEvent], bool] | None = None,
        mapper: Callable[[RecordedEvent], Any] | None = None,
        where: Filter = EVERYTHING,
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Any]]]:
        """Follow a stream or ALL from now on; see :meth:`EventStore.subscribe`."""
        check_name("source", source)
        check_filter(where)
        check_callable("selector", selector)
        check_callable("mapper", mapper)
        return follow(self, self.wakeups, source, self._standing, selector=selector, mapper=mapper, where=where)

    async def _standing(self, source: str) -> Place:
        state = self._seen(None)
        if source == ALL:
            return Place(state.head)
        stream = state.streams.get(source)
        return Place(0) if stream is None else Place(stream.version, stream.stream_id)


def _sort_key(info: StreamInfo, column: StreamSort) -> Any:
    value = getattr(info, column)
    return datetime.min.replace(tzinfo=UTC) if value is None else value
