"""Completes reads with what is archived: whoever reads gets every event, or an error that says where they are.

Never looks into a file while a connection is held. The database is always asked after the events were read: a range is
marked as archived before it leaves the events, so that a reader that did not get it finds the mark. A range that came
back since has no mark any more; the count of those tells, and then the events are read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from headwater.storage.archive.files import ArchiveFolder
from headwater.storage.errors import ArchiveDamaged, RangeArchived
from headwater.storage.filters import matches
from headwater.storage.model import ALL, EVERYTHING, MAX_BIGINT, EventPage, Filter, RecordedEvent
from headwater.storage.postgres.connect import Connection, row_cursor
from headwater.storage.postgres.ranges import (
    Erasures,
    EventRange,
    archived_ranges,
    read_erasures,
)
from headwater.storage.postgres.statements import Statements

_PAGE_BLOCKS: Final = 64
"""How many blocks a page looks through at most before it says how far it came."""

Wanted = Callable[[RecordedEvent], bool]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """What of a read is archived: where to look for it, and what to leave out."""

    ranges: Sequence[EventRange]
    erasures: Erasures
    low: int
    high: int
    backward: bool = False

    @property
    def files(self) -> list[str | None]:
        """The files that hold it."""
        return [each.file for each in self.ranges]

    def events(
        self, folder: ArchiveFolder | None, limit: int, wanted: Wanted, most_blocks: int | None = None
    ) -> tuple[list[RecordedEvent], int]:
        """Return up to ``limit`` events, and the position up to which was looked. Raises ArchiveError."""
        found: list[RecordedEvent] = []
        blocks = 0
        for each in reversed(self.ranges) if self.backward else self.ranges:
            if folder is None:
                raise RangeArchived(each.first_position, each.last_position, each.file)
            manifest = folder.manifest(each.file or "", each.manifest_sha256 or "")
            for block, events in folder.blocks(manifest, self.low, self.high, backward=self.backward):
                for event in events:
                    if self.low <= event.position <= self.high and wanted(event) and not self.erasures.cover(event):
                        found.append(event)
                        if len(found) == limit:
                            return found, event.position
                blocks += 1
                if blocks == most_blocks:
                    return found, block.last_position
        return found, self.high


class ArchivedReads:
    """Reads of one store, which has an archive or not: only one in ranges of positions may have one.

    A read is made of two steps: what the database has, with what is ``missing`` from it; then the files.
    """

    def __init__(self, sql: Statements, folder: str | None) -> None:
        self._sql = sql
        self._folder = None if folder is None else ArchiveFolder(Path(folder))
        self._restores = 0

    async def read(
        self,
        conn: Connection,
        source: str,
        start: int | None,
        limit: int,
        backward: bool,
        where: Filter,
        read: Callable[[], Awaitable[list[RecordedEvent]]],
    ) -> tuple[list[RecordedEvent], Missing]:
        """Read by ``read``; returns what it gave, and what is missing from that."""
        low, high = (1, MAX_BIGINT if start is None else start) if backward else (max(start or 1, 1), MAX_BIGINT)

        def whole(events: list[RecordedEvent]) -> bool:
            if source == ALL and backward:
                return where == EVERYTHING and len(events) == limit
            if source == ALL:
                # Archived are the oldest: where the first is here, all are.
                return where == EVERYTHING and bool(events) and events[0].position == low
            numbers = range(low, low + limit)
            return not backward and len(events) == limit and (events[0].number, events[-1].number) == (low, numbers[-1])

        async def missing(_: list[RecordedEvent]) -> Missing:
            if source == ALL:
                return await self._part(conn, low, high, backward)
            return await self._of_stream(conn, source, low, high, limit, backward)

        if limit == 0:
            return await read(), None
        return await self._watched(conn, read, whole, missing)

    async def read_page(
        self,
        conn: Connection,
        source: str,
        after: int,
        limit: int,
        where: Filter,
        read: Callable[[], Awaitable[EventPage]],
    ) -> tuple[EventPage, Missing]:
        """Read a page by ``read``; returns it, and what is missing from it."""

        def whole(page: EventPage) -> bool:
            if page.read_to <= after:
                return True
            if where != EVERYTHING or not page.events or page.events[0].number != after + 1:
                return False
            return source == ALL or (len(page.events) == limit and page.events[-1].number == after + limit)

        async def missing(_: EventPage) -> Missing:
            if source == ALL:
                return await self._part(conn, after + 1, MAX_BIGINT)
            return await self._of_stream(conn, source, after + 1, MAX_BIGINT, limit, False)

        return await self._watched(conn, read, whole, missing)

    async def position_at(
        self, conn: Connection, when: datetime, read: Callable[[], Awaitable[int]]
    ) -> tuple[int, Missing]:
        """Find a time by ``read``; returns the position before it, and where it is looked for first."""

        async def missing(_: int) -> Missing:
            rows = await self._rows(conn, self._sql.archived_since, {"when": when})
            return await self._part(conn, rows[0][0], rows[0][1]) if rows else None

        return await self._watched(conn, read, lambda _: False, missing)

    async def _watched(
        self,
        conn: Connection,
        read: Callable[[], Awaitable[T]],
        whole: Callable[[T], bool],
        missing: Callable[[T], Awaitable[Missing]],
    ) -> tuple[T, Missing]:
        while True:
            before = self._restores
            got = await read()
            if not self._sql.partitioned or whole(got):
                return got, None
            part = await missing(got)
            [(self._restores,)] = await self._rows(conn, self._sql.restores)
            if self._restores == before:
                return got, part

    async def _of_stream(
        self, conn: Connection, stream: str, low: int, high: int, limit: int, backward: bool
    ) -> StreamPart | None:
        wanted = {"stream": stream, "low": low, "high": high, "limit": limit}
        own = await self._rows(conn, self._sql.archived_stream, wanted)
        statement = self._sql.archived_links_backward if backward else self._sql.archived_links
        links = dict(await self._rows(conn, statement, wanted))
        if not own and not links:
            return None
        return StreamPart(
            stream,
            low,
            high,
            await self._part(conn, own[0][0], own[0][1], backward) if own else None,
            await self._part(conn, min(links.values()), max(links.values())) if links else None,
            links,
            backward,
        )

    async def whole(
        self, look: Callable[[], Awaitable[tuple[T, Missing]]], add: Callable[[Missing, T], Awaitable[T]]
    ) -> T:
        """Return what ``look`` finds in the database, with what is archived, by ``add``. Raises ArchiveError.

        A file may have been written anew, and the old one removed, since it was looked which one it is.
        """
        tried: Sequence[str | None] = ()
        while True:
            got, missing = await look()
            try:
                return await add(missing, got)
            except ArchiveDamaged:
                assert missing is not None
                if missing.files == tried:
                    raise
                tried = missing.files

    async def complete(
        self, limit: int, where: Filter, part: Missing, events: list[RecordedEvent]
    ) -> list[RecordedEvent]:
        """Return the events of a read with those that are archived. Raises ArchiveError."""
        if part is None:
            return events
        if isinstance(part, StreamPart):
            found = {event.number: event for event in await asyncio.to_thread(part.events, self._folder, limit, where)}
            found |= {event.number: event for event in events}
            return [found[number] for number in sorted(found, reverse=part.backward)][:limit]
        here = [event for event in events if not part.low <= event.position <= part.high]
        if part.backward:
            return here + (await self._events(part, limit - len(here), where) if len(here) < limit else [])
        return (await self._events(part, limit, where) + here)[:limit]

    async def complete_page(self, after: int, limit: int, where: Filter, part: Missing, page: EventPage) -> EventPage:
        """Return a page with what is archived. Raises ArchiveError."""
        if part is None:
            return page
        if isinstance(part, StreamPart):
            # What comes later than the page has read is for a later page.
            part = replace(part, high=min(part.high, page.read_to))
            events = await self.complete(limit, where, part, list(page.events))
            return replace(page, events=events, read_to=events[-1].number if len(events) == limit else page.read_to)
        found, read_to = await asyncio.to_thread(
            part.events, self._folder, limit, lambda event: matches(where, event), _PAGE_BLOCKS
        )
        return replace(page, events=found, read_to=max(read_to, after))

    async def first_position(self, when: datetime, part: Missing, position: int) -> int:
        """Return the position before the first event of a time or later. Raises ArchiveError."""
        if not isinstance(part, Part):
            return position
        found = await self._events(part, 1, Filter(since=when))
        return found[0].position - 1 if found else part.high

    async def _events(self, part: Part, limit: int, where: Filter) -> list[RecordedEvent]:
        found, _ = await asyncio.to_thread(part.events, self._folder, limit, lambda event: matches(where, event))
        return found

    async def _part(self, conn: Connection, low: int, high: int, backward: bool = False) -> Part | None:
        ranges = await archived_ranges(conn, self._sql, low, high)
        if not ranges:
            return None
        high = min(high, ranges[-1].last_position)
        return Part(ranges, await read_erasures(conn, self._sql), low, high, backward)

    async def _rows(self, conn: Connection, statement: bytes, wanted: dict[str, Any] | None = None) -> list[Any]:
        return await (await row_cursor(conn).execute(statement, wanted)).fetchall()


@dataclass(frozen=True, slots=True)
class StreamPart:
    """What of a stream is archived: its own events, and events that it links to."""

    stream: str
    low: int
    high: int
    own: Part | None
    linked: Part | None
    links: dict[int, int]
    """Positions by their numbers in the stream."""
    backward: bool

    @property
    def files(self) -> list[str | None]:
        """The files that hold it."""
        return [file for part in (self.own, self.linked) if part is not None for file in part.files]

    def events(self, folder: ArchiveFolder | None, limit: int, where: Filter) -> list[RecordedEvent]:
        """Return up to ``limit`` own events, and the linked ones, numbered in the stream. Raises ArchiveError."""
        found: list[RecordedEvent] = []
        if self.own is not None:
            own, _ = self.own.events(
                folder,
                limit,
                lambda event: (
                    event.stream == self.stream and self.low <= event.version <= self.high and matches(where, event)
                ),
            )
            found += [event._replace(number=event.version) for event in own]
        if self.linked is not None:
            numbers = {position: number for number, position in self.links.items() if self.low <= number <= self.high}
            linked, _ = self.linked.events(
                folder, len(numbers) + 1, lambda event: event.position in numbers and matches(where, event)
            )
            found += [event._replace(number=numbers[event.position]) for event in linked]
        return found


Missing: TypeAlias = Part | StreamPart | None
"""What of a read is archived."""
