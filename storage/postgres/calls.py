"""What the store offers for whole streams and for snapshots: each call checked, lent a connection and passed on.

The other half of the façade; appending and reading are in ``store``.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from headwater.storage.checks import (
    check_callable,
    check_expected,
    check_filter,
    check_flag,
    check_link_ids,
    check_listing_page,
    check_name,
    check_number,
    check_search,
    check_snapshot,
    check_sort,
    check_target,
)
from headwater.storage.errors import HardDeletesDisabled
from headwater.storage.model import (
    ALL,
    ANY,
    EVERYTHING,
    MAX_BIGINT,
    EventPage,
    Expected,
    Filter,
    RecordedEvent,
    Snapshot,
    StreamInfo,
    StreamPage,
)
from headwater.storage.options import StoreOptions
from headwater.storage.payloads import Payloads
from headwater.storage.postgres import deletion, links, listing, reading, snapshots
from headwater.storage.postgres.connect import Connection
from headwater.storage.postgres.statements import Statements
from headwater.storage.store import StreamSort
from headwater.storage.transient import Place, Wakeups, follow


class StreamCalls(ABC):
    """The part of the façade that knows streams as a whole."""

    options: StoreOptions
    sql: Statements
    wakeups: Wakeups
    payloads: Payloads

    @abstractmethod
    def connection(self, conn: Connection | None = None) -> AbstractAsyncContextManager[Connection]:
        """Lend a connection of the pool, or the caller's own; driver errors leave it as the store's errors."""

    @abstractmethod
    async def read_page(
        self, source: str, after: int, limit: int, *, where: Filter = EVERYTHING, conn: Connection | None = None
    ) -> EventPage:
        """Read the next events of a source."""

    async def link(
        self,
        stream: str,
        events: Sequence[RecordedEvent | uuid.UUID],
        expected_version: Expected = ANY,
        *,
        conn: Connection | None = None,
    ) -> int:
        """Put stored events into a further stream; see :meth:`EventStore.link`."""
        check_target(stream, "link to")
        check_expected(expected_version)
        ids = check_link_ids(stream, events)
        async with self.connection(conn) as conn:
            version = await links.link(conn, self.sql, stream, ids, expected_version)
        self.wakeups.moved()
        return version

    async def delete_stream(
        self,
        stream: str,
        expected_version: Expected = ANY,
        *,
        hard: bool = False,
        conn: Connection | None = None,
    ) -> None:
        """Delete a stream; see :meth:`EventStore.delete_stream`."""
        check_target(stream, "delete")
        check_expected(expected_version)
        if check_flag("hard", hard):
            self._check_hard_deletes(stream)
        async with self.connection(conn) as conn:
            await deletion.delete_stream(conn, self.sql, stream, expected_version, hard)

    async def undelete_stream(self, stream: str, *, conn: Connection | None = None) -> None:
        """Take a soft delete back; see :meth:`EventStore.undelete_stream`."""
        check_target(stream, "undelete")
        async with self.connection(conn) as conn:
            await deletion.undelete_stream(conn, self.sql, stream)

    async def truncate_stream(self, stream: str, before: int, *, conn: Connection | None = None) -> int:
        """Remove the beginning of a stream; see :meth:`EventStore.truncate_stream`."""
        check_target(stream, "truncate")
        check_number("before", before)
        self._check_hard_deletes(stream)
        async with self.connection(conn) as conn:
            return await deletion.truncate_stream(conn, self.sql, stream, before)

    def _check_hard_deletes(self, stream: str) -> None:
        if not self.options.hard_deletes:
            raise HardDeletesDisabled(stream)

    async def stream_info(self, stream: str, *, conn: Connection | None = None) -> StreamInfo:
        """Describe a stream; see :meth:`EventStore.stream_info`."""
        check_name("stream", stream)
        async with self.connection(conn) as conn:
            return await listing.stream_info(conn, self.sql, stream)

    async def list_streams(
        self,
        *,
        search: str | None = None,
        sort: StreamSort = "stream_id",
        descending: bool = False,
        page: int = 1,
        page_size: int = 50,
        conn: Connection | None = None,
    ) -> StreamPage:
        """List the streams; see :meth:`EventStore.list_streams`."""
        part, order = check_search(search), check_sort(sort)
        check_flag("descending", descending)
        check_listing_page(page, page_size)
        async with self.connection(conn) as conn:
            return await listing.list_streams(conn, self.sql, part, order, descending, page, page_size)

    async def record_snapshot(self, snapshot: Snapshot, *, conn: Connection | None = None) -> None:
        """Save a snapshot; see :meth:`EventStore.record_snapshot`."""
        check_snapshot(snapshot)
        ready = await self.payloads.prepare_snapshot(snapshot)
        async with self.connection(conn) as conn:
            await snapshots.record(conn, self.sql, ready)

    async def read_snapshot(self, source: str, *, up_to: int | None = None, conn: Connection | None = None) -> Snapshot:
        """Return the newest snapshot; see :meth:`EventStore.read_snapshot`."""
        check_name("source", source)
        highest = MAX_BIGINT if up_to is None else check_number("up_to", up_to)
        async with self.connection(conn) as conn:
            stored = await snapshots.read(conn, self.sql, source, highest)
        return await self.payloads.open_snapshot(stored)

    async def delete_snapshots(self, source: str, *, before: int | None = None, conn: Connection | None = None) -> int:
        """Delete snapshots; see :meth:`EventStore.delete_snapshots`."""
        check_name("source", source)
        if before is not None:
            check_number("before", before)
        async with self.connection(conn) as conn:
            return await snapshots.delete(conn, self.sql, source, before)

    async def forget(self, subject: str) -> bool:
        """Destroy a subject's key; see :meth:`EventStore.forget`."""
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
        async with self.connection() as conn:
            if source == ALL:
                return Place(await reading.head(conn, self.sql))
            state = await reading.stream_state(conn, self.sql, source)
        return Place(0) if state is None else Place(state.version, state.stream_id)
