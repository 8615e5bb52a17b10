"""The event store for synchronous callers: every call is the asynchronous one, run on an event loop in a thread.

Holds no logic of its own, and may be shared by any number of threads: their appends are committed together.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from headwater.storage.errors import StoreClosed
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
from headwater.storage.store import EventStore, StreamSort

Value = TypeVar("Value")


class LoopThread:
    """One event loop in a daemon thread, for the length of a block or until closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._entering = threading.Lock()
        """Guards ``_closed``: nothing may come to the loop after it was told to end, because nobody would answer."""
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="headwater-sync", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()

    def call(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Run a coroutine on the loop and wait for it. An interrupt of the waiting thread cancels it.

        Raises StoreClosed when the loop has ended, or ends meanwhile.
        """
        with self._entering:
            if self._closed:
                work.close()
                raise StoreClosed
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise StoreClosed from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Stop the loop and wait for the thread. Safe to repeat."""
        with self._entering:
            closed, self._closed = self._closed, True
        if not closed:
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


class BlockingEventStore:
    """A store's calls without ``await``; see :class:`~headwater.storage.store.EventStore` for what each one does.

    ``with BlockingEventStore(lambda: PostgresEventStore.open(url)) as store``. There is no ``conn``: a transaction of a
    synchronous driver cannot be joined from the loop's thread.
    """

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[EventStore]]) -> None:
        self._thread = LoopThread()
        self._stack = AsyncExitStack()
        try:
            self._store = self._thread.call(self._enter(opening))
        except BaseException:
            self._thread.close()
            raise

    async def _enter(self, opening: Callable[[], AbstractAsyncContextManager[EventStore]]) -> EventStore:
        return await self._stack.enter_async_context(opening())

    def __repr__(self) -> str:
        return f"<BlockingEventStore of {self._store!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the store and stop its thread. Safe to repeat."""
        try:
            self._thread.call(self._stack.aclose())
        except StoreClosed:
            return
        finally:
            self._thread.close()

    def append(
        self,
        stream: str,
        events: Sequence[NewEvent],
        expected_version: Expected = ANY,
        *,
        condition: AppendCondition | None = None,
        created_at: datetime | None = None,
    ) -> AppendResult:
        """Append events to the end of a stream."""
        return self._thread.call(
            self._store.append(stream, events, expected_version, condition=condition, created_at=created_at)
        )

    def append_to_many(
        self,
        appends: Sequence[StreamAppend],
        *,
        condition: AppendCondition | None = None,
        created_at: datetime | None = None,
    ) -> list[AppendResult]:
        """Append to several streams, all or none."""
        return self._thread.call(self._store.append_to_many(appends, condition=condition, created_at=created_at))

    def link(self, stream: str, events: Sequence[RecordedEvent | uuid.UUID], expected_version: Expected = ANY) -> int:
        """Put stored events into a further stream."""
        return self._thread.call(self._store.link(stream, events, expected_version))

    def read(
        self, stream: str, *, start: int | None = None, limit: int = 1000, backward: bool = False
    ) -> list[RecordedEvent]:
        """Read events of a stream."""
        return self._thread.call(self._store.read(stream, start=start, limit=limit, backward=backward))

    def read_all(
        self,
        *,
        start: int | None = None,
        limit: int = 1000,
        backward: bool = False,
        where: Filter = EVERYTHING,
    ) -> list[RecordedEvent]:
        """Read the store-wide order."""
        return self._thread.call(self._store.read_all(start=start, limit=limit, backward=backward, where=where))

    def stream(
        self, stream: str, *, start: int | None = None, backward: bool = False, page_size: int = 1000
    ) -> Iterator[RecordedEvent]:
        """Iterate lazily over a stream."""
        return self._iterate(self._store.stream(stream, start=start, backward=backward, page_size=page_size), page_size)

    def stream_all(
        self,
        *,
        start: int | None = None,
        backward: bool = False,
        where: Filter = EVERYTHING,
        page_size: int = 1000,
    ) -> Iterator[RecordedEvent]:
        """Iterate lazily over the store-wide order."""
        return self._iterate(
            self._store.stream_all(start=start, backward=backward, where=where, page_size=page_size), page_size
        )

    def read_page(self, source: str, after: int, limit: int, *, where: Filter = EVERYTHING) -> EventPage:
        """Read the next events of a source after a number."""
        return self._thread.call(self._store.read_page(source, after, limit, where=where))

    def head(self) -> int:
        """Return the highest position."""
        return self._thread.call(self._store.head())

    def position_at(self, when: datetime) -> int:
        """Return the position before the first event created at or after a time."""
        return self._thread.call(self._store.position_at(when))

    def stream_info(self, stream: str) -> StreamInfo:
        """Describe a stream."""
        return self._thread.call(self._store.stream_info(stream))

    def list_streams(
        self,
        *,
        search: str | None = None,
        sort: StreamSort = "stream_id",
        descending: bool = False,
        page: int = 1,
        page_size: int = 50,
    ) -> StreamPage:
        """List the streams."""
        return self._thread.call(
            self._store.list_streams(search=search, sort=sort, descending=descending, page=page, page_size=page_size)
        )

    def delete_stream(self, stream: str, expected_version: Expected = ANY, *, hard: bool = False) -> None:
        """Delete a stream, softly or hard."""
        self._thread.call(self._store.delete_stream(stream, expected_version, hard=hard))

    def undelete_stream(self, stream: str) -> None:
        """Take a soft delete back."""
        self._thread.call(self._store.undelete_stream(stream))

    def truncate_stream(self, stream: str, before: int) -> int:
        """Remove the stream's own events below a version."""
        return self._thread.call(self._store.truncate_stream(stream, before))

    def record_snapshot(self, snapshot: Snapshot) -> None:
        """Save a state."""
        self._thread.call(self._store.record_snapshot(snapshot))

    def read_snapshot(self, source: str, *, up_to: int | None = None) -> Snapshot:
        """Return the source's snapshot of the highest version."""
        return self._thread.call(self._store.read_snapshot(source, up_to=up_to))

    def delete_snapshots(self, source: str, *, before: int | None = None) -> int:
        """Delete the source's snapshots."""
        return self._thread.call(self._store.delete_snapshots(source, before=before))

    def forget(self, subject: str) -> bool:
        """Destroy a subject's key; returns whether there was one."""
        return self._thread.call(self._store.forget(subject))

    def wait_for(self, subscription: str, position: int, timeout: float = 10.0) -> None:
        """Return once a subscription has settled everything up to a position."""
        self._thread.call(self._store.wait_for(subscription, position, timeout))

    @contextmanager
    def subscribe(
        self,
        source: str,
        *,
        selector: Callable[[RecordedEvent], bool] | None = None,
        mapper: Callable[[RecordedEvent], Any] | None = None,
        where: Filter = EVERYTHING,
    ) -> Iterator[Iterator[Sequence[Any]]]:
        """Follow a source from now on; the selector and the mapper run in the loop's thread."""
        context = self._store.subscribe(source, selector=selector, mapper=mapper, where=where)
        batches = self._thread.call(context.__aenter__())
        try:
            yield (batch for [batch] in iter(lambda: self._thread.call(_take(batches, 1)), []))
        finally:
            self._thread.call(context.__aexit__(None, None, None))

    def _iterate(self, events: AsyncIterator[RecordedEvent], size: int) -> Iterator[RecordedEvent]:
        # A page crosses between the threads at a time, not an event.
        while page := self._thread.call(_take(events, size)):
            yield from page


async def _take(values: AsyncIterator[Value], number: int) -> list[Value]:
    taken: list[Value] = []
    async for value in values:
        taken.append(value)
        if len(taken) >= number:
            break
    return taken
