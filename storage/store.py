"""The event store as its callers see it: one protocol, kept by the Postgres store and by its in-memory twin.

Holds no implementation. Everything is asynchronous; ``headwater.sync`` offers the same to synchronous callers.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias

from headwater.storage.model import (
    ANY,
    EVERYTHING,
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

Connection: TypeAlias = Any
"""A caller's own connection, for calls that are to be part of its transaction: psycopg's ``AsyncConnection``."""

StreamSort: TypeAlias = Literal["name", "stream_id", "version", "created_at", "deleted_at"]


class EventStore(Protocol):
    """Append-only streams of events in one store-wide, gapless order that equals the order of commits.

    Every method takes ``conn``: with it, the call runs on the caller's connection and in its transaction, and becomes
    durable (or not) with it. An append on ``conn`` holds the store-wide order until that transaction ends: keep it
    short.

    Every method may raise :class:`~headwater.storage.errors.InvalidArgument` for a value that can never work,
    :class:`~headwater.storage.errors.StoreUnavailable` when the database does not answer, and
    :class:`~headwater.storage.errors.StoreClosed`. Reads are always safe to retry; appends are when the same
    :class:`~headwater.storage.model.NewEvent` values (same ids) are sent again.
    """

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
        """Append events to the end of a stream, all or none; returns where they stand.

        The same event ids at the same place again return the first result with ``repeated=True``.
        With ``condition``, nothing is written when an event that matches its filter stands after its position.
        ``created_at`` sets the time of every event of the call (for imports); without it the server's clock does.

        Raises WrongExpectedVersion (StreamExists, StreamMissing), StreamDeleted, DuplicateEvent, ConditionFailed,
        ReservedStream, EncodingFailed, CommitUnknown.
        """
        ...

    async def append_to_many(
        self,
        appends: Sequence[StreamAppend],
        *,
        condition: AppendCondition | None = None,
        created_at: datetime | None = None,
        conn: Connection | None = None,
    ) -> list[AppendResult]:
        """Append to several streams, all or none; results in the order of ``appends``. Never deadlocks."""
        ...

    async def link(
        self,
        stream: str,
        events: Sequence[RecordedEvent | uuid.UUID],
        expected_version: Expected = ANY,
        *,
        conn: Connection | None = None,
    ) -> int:
        """Put stored events into a further stream, in the given order; returns that stream's new version.

        A reader of the stream sees the originals, numbered in the target. Raises EventNotFound when any is not
        stored, AlreadyLinked when any is in the stream already; nothing is linked then.
        """
        ...

    async def read(
        self,
        stream: str,
        *,
        start: int | None = None,
        limit: int = 1000,
        backward: bool = False,
        conn: Connection | None = None,
    ) -> list[RecordedEvent]:
        """Read up to ``limit`` events of a stream, from the one numbered ``start`` (inclusive) on.

        ``start`` defaults to the first event, or to the last one when reading backward. Reading ``ALL`` reads the
        store-wide order. Raises StreamNotFound, StreamDeleted.
        """
        ...

    async def read_all(
        self,
        *,
        start: int | None = None,
        limit: int = 1000,
        backward: bool = False,
        where: Filter = EVERYTHING,
        conn: Connection | None = None,
    ) -> list[RecordedEvent]:
        """Read up to ``limit`` events in the store-wide order from position ``start`` (inclusive) on."""
        ...

    def stream(
        self, stream: str, *, start: int | None = None, backward: bool = False, page_size: int = 1000
    ) -> AsyncIterator[RecordedEvent]:
        """Iterate lazily over a stream, or over ``ALL``, a page at a time, in constant memory."""
        ...

    def stream_all(
        self,
        *,
        start: int | None = None,
        backward: bool = False,
        where: Filter = EVERYTHING,
        page_size: int = 1000,
    ) -> AsyncIterator[RecordedEvent]:
        """Iterate lazily over the store-wide order, a page at a time, in constant memory."""
        ...

    async def read_page(
        self,
        source: str,
        after: int,
        limit: int,
        *,
        where: Filter = EVERYTHING,
        conn: Connection | None = None,
    ) -> EventPage:
        """Read the next events of a stream or of ``ALL`` after number ``after``: what subscriptions read with.

        ``read_to`` also passes over what the filter left out and over holes, so that a reader always advances. A
        stream that is missing, empty or soft-deleted gives an empty page with ``read_to == after``.
        """
        ...

    async def head(self) -> int:
        """Return the highest position, 0 for an empty store."""
        ...

    async def position_at(self, when: datetime) -> int:
        """Return the position before the first event created at or after ``when`` (the head when there is none)."""
        ...

    async def stream_info(self, stream: str, *, conn: Connection | None = None) -> StreamInfo:
        """Describe a stream, or ``ALL``. Raises StreamNotFound, StreamDeleted."""
        ...

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
        """List the streams, soft-deleted ones included; ``search`` is a literal part of the name."""
        ...

    async def delete_stream(
        self,
        stream: str,
        expected_version: Expected = ANY,
        *,
        hard: bool = False,
        conn: Connection | None = None,
    ) -> None:
        """Delete a stream: softly (its events stay readable in ALL and by links), or hard (its own events are gone).

        Raises StreamNotFound, StreamDeleted (soft, when it is already), WrongExpectedVersion, ReservedStream,
        HardDeletesDisabled. A hard delete never removes events that the stream only links to.
        """
        ...

    async def undelete_stream(self, stream: str, *, conn: Connection | None = None) -> None:
        """Take a soft delete back. Raises StreamNotFound."""
        ...

    async def truncate_stream(self, stream: str, before: int, *, conn: Connection | None = None) -> int:
        """Remove the stream's own events below version ``before`` for good; returns how many went.

        Raises StreamNotFound, StreamDeleted, HardDeletesDisabled.
        """
        ...

    async def record_snapshot(self, snapshot: Snapshot, *, conn: Connection | None = None) -> None:
        """Save a state; snapshots of other versions of the source stay."""
        ...

    async def read_snapshot(self, source: str, *, up_to: int | None = None, conn: Connection | None = None) -> Snapshot:
        """Return the source's snapshot of the highest version (up to ``up_to``). Raises SnapshotNotFound."""
        ...

    async def delete_snapshots(self, source: str, *, before: int | None = None, conn: Connection | None = None) -> int:
        """Delete the source's snapshots (those below version ``before``); returns how many there were."""
        ...

    async def forget(self, subject: str) -> bool:
        """Destroy the key of a subject, for good; returns whether there was one. Safe to repeat.

        What was encrypted under it stays where it is and shows ERASED from then on: here at once, in other programs as
        soon as they ask for the key again (``Encryption.cache_time``). What they append for the subject meanwhile is
        erased, too; later it gets a new key. Tags, stream names and whatever handlers wrote elsewhere stay.
        """
        ...

    async def wait_for(self, subscription: str, position: int, timeout: float = 10.0) -> None:  # noqa: ASYNC109
        """Return once every partition of a subscription has settled everything up to a position.

        For reading one's own write: ``position`` is the ``last_position`` of an append. Settled means handled, skipped
        or parked, and saved; of a single stream's subscription what counts is what that stream holds up to there. Looks
        every 20 ms at first, and every 250 ms at last. Safe to repeat.

        Raises WaitTimedOut after so many seconds (with where it stands, and why), SubscriptionNotFound, StreamDeleted
        when its source is a soft-deleted stream with events that it has not settled.
        """
        ...

    def subscribe(
        self,
        source: str,
        *,
        selector: Callable[[RecordedEvent], bool] | None = None,
        mapper: Callable[[RecordedEvent], Any] | None = None,
        where: Filter = EVERYTHING,
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Any]]]:
        """Follow a stream or ``ALL`` from now on, without a checkpoint: batches of what was appended, in order.

        Entering the context fixes the starting point: everything committed afterwards is seen exactly once.
        """
        ...
