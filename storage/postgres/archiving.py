"""Moves old ranges of events out of the database into files, and back.

Never drops a range that was not written, read again and compared, nor one of which something was deleted meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import sql as composed

from headwater.storage.archive.files import ArchiveFolder, Manifest
from headwater.storage.checks import check_number, check_time
from headwater.storage.errors import ArchiveDamaged, ConfigurationError, StoreUnavailable
from headwater.storage.model import RecordedEvent
from headwater.storage.options import StoreOptions
from headwater.storage.postgres import reading
from headwater.storage.postgres.connect import Connection, event_cursor, row_cursor
from headwater.storage.postgres.partitioning import check_partitioned, ranges_lock, when_free
from headwater.storage.postgres.ranges import Erasures, EventRange, archived_ranges, list_ranges, read_erasures
from headwater.storage.postgres.statements import Statements

BLOCK: Final = 1_000
"""How many events are compressed together: what a read of one event has to unpack."""
_EXPORTS: Final = 10
"""How often a range is exported again because something of it was deleted meanwhile."""
_COLUMNS: Final = (
    "position", "stream", "version", "event_id", "type", "data", "metadata", "causation_id", "correlation_id",
    "created_at", "tags", "schema_version",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RangeStatus:
    """A range of positions, and where its events are."""

    first_position: int
    last_position: int
    state: str
    """``open`` (the head has not left it), ``closed`` (could be archived), ``archived`` or ``damaged``."""
    events: int | None = None
    """How many were archived."""
    file: str | None = None
    problem: str | None = None
    """Why an archived range cannot be read."""


class Archivist:
    """Keeps one store's archive. Make it with :func:`open_archive`; one works on a store at a time."""

    def __init__(self, conn: Connection, sql: Statements, options: StoreOptions) -> None:
        self._conn = conn
        self._sql = sql
        self._options = options
        self._archive = None if options.archive is None else ArchiveFolder(options.archive)

    @property
    def _folder(self) -> ArchiveFolder:
        if self._archive is None:
            raise ConfigurationError("archive: say which folder holds the archive, or set HEADWATER_ARCHIVE")
        return self._archive

    async def ranges(self) -> list[RangeStatus]:
        """Return all ranges, the oldest first."""
        head = await reading.head(self._conn, self._sql)
        return [_status(each, head) for each in await list_ranges(self._conn, self._sql)]

    async def candidates(self, before: int | datetime) -> list[RangeStatus]:
        """Return the ranges that ``archive`` would move: those whose every event stands before a position or time."""
        head = await reading.head(self._conn, self._sql)
        return [_status(each, head) for each in await self._closed_before(before, head)]

    async def archive(self, before: int | datetime, *, readers_restarted: bool = False) -> list[RangeStatus]:
        """Move the ranges whose every event stands before a position or time into files; returns those.

        Appends and reads go on meanwhile. May be repeated after it was interrupted. ``readers_restarted`` has to be
        said once, for a store that was partitioned while it had events: programs that opened it before know of no
        archive.
        Raises ConfigurationError, ArchiveError, StoreUnavailable.
        """
        state = await self._row(self._sql.partitioning_state)
        if state[-1] and not readers_restarted:
            raise ConfigurationError(
                "this store was partitioned while in use: restart all programs that opened it before, then say so "
                "(readers_restarted=True, --readers-restarted)"
            )
        if state[-1]:
            await self._conn.execute(self._sql.readers_restarted)
        await self._drop_archived()
        head = await reading.head(self._conn, self._sql)
        moved = []
        for each in await self._closed_before(before, head):
            moved.append(await self._move_out(each))
            await self._drop_archived()
        return moved

    async def verify(self) -> list[RangeStatus]:
        """Read the whole archive and compare it with what was written; returns each archived range's state."""
        checked = []
        for each in await archived_ranges(self._conn, self._sql):
            problem = None
            try:
                manifest = await asyncio.to_thread(self._manifest, each)
                await asyncio.to_thread(self._folder.verify, manifest)
            except ArchiveDamaged as error:
                problem = str(error)
            state = "archived" if problem is None else "damaged"
            checked.append(RangeStatus(each.first_position, each.last_position, state, each.events, each.file, problem))
        return checked

    async def restore(self, after: int = 0) -> list[RangeStatus]:
        """Bring the archived ranges with events after a position back into the database; returns those.

        The newest first: what stays archived is always the oldest. The files stay. Raises ArchiveError.
        """
        check_number("after", after)
        await self._drop_archived()
        erasures = await read_erasures(self._conn, self._sql)
        ranges = await archived_ranges(self._conn, self._sql, after + 1)
        for each in reversed(ranges):
            await self._move_in(each, erasures)
        return [RangeStatus(each.first_position, each.last_position, "closed") for each in ranges]

    async def erase(self) -> list[RangeStatus]:
        """Write those files anew of which events were deleted for good since; returns their ranges.

        Afterwards nothing of those events is left, in the old files' folder neither. Backups of it are not known here.
        May be repeated after it was interrupted.
        """
        if self._archive is not None:
            for each in await archived_ranges(self._conn, self._sql):
                await asyncio.to_thread(self._archive.end_replacing, each.file or "")
        last = (await self._row(self._sql.last_erasure))[0]
        erasures = await read_erasures(self._conn, self._sql)
        if not erasures:
            return []
        ranges = await archived_ranges(self._conn, self._sql)
        rewritten = [await self._rewrite(each, erasures) for each in ranges]
        await self._conn.execute(self._sql.settle_erasures, {"last": last})
        return [status for status in rewritten if status is not None]

    async def _closed_before(self, before: int | datetime, head: int) -> list[EventRange]:
        if isinstance(before, datetime):
            before = await reading.position_at(self._conn, self._sql, check_time("before", before)) + 1
        check_number("before", before, 1)
        here = [each for each in await list_ranges(self._conn, self._sql) if each.archived_at is None]
        return [each for each in here if each.last_position < before and each.last_position <= head]

    async def _move_out(self, each: EventRange) -> RangeStatus:
        folder = self._folder
        for _ in range(_EXPORTS):
            current = next(
                row for row in await list_ranges(self._conn, self._sql) if row.first_position == each.first_position
            )
            pages = self._pages(each.first_position, each.last_position)
            manifest, sha256 = await self._write(folder, each, pages)
            await self._note_streams(each)
            about = {
                "first": each.first_position,
                "changes": current.changes,
                "file": manifest.file,
                "manifest_sha256": sha256,
                "events": manifest.events,
                "first_time": manifest.first_time,
                "last_time": manifest.last_time,
            }
            if (await self._row(self._sql.archive_range, about))[0]:
                return RangeStatus(each.first_position, each.last_position, "archived", manifest.events, manifest.file)
            await asyncio.to_thread(folder.remove, manifest.file)
        raise StoreUnavailable(
            f"events of the range {each.first_position} to {each.last_position} were deleted during each of "
            f"{_EXPORTS} exports: archive it when there are fewer deletes"
        )

    async def _write(
        self, folder: ArchiveFolder, each: EventRange, pages: AsyncIterator[Sequence[RecordedEvent]]
    ) -> tuple[Manifest, str]:
        """Write a range's file, then read it from disk and compare. Raises ArchiveDamaged."""
        writer = await asyncio.to_thread(
            folder.write, self._options.schema, self._sql.payload, each.first_position, each.last_position
        )
        with writer:
            async for page in pages:
                await asyncio.to_thread(writer.add, page)
            manifest, sha256 = await asyncio.to_thread(writer.finish)
        await asyncio.to_thread(folder.verify, await asyncio.to_thread(folder.manifest, manifest.file, sha256))
        return manifest, sha256

    async def _pages(self, first: int, last: int) -> AsyncIterator[list[RecordedEvent]]:
        while True:
            cursor = event_cursor(self._conn)
            await cursor.execute(self._sql.read_range, {"start": first, "last": last, "limit": BLOCK}, binary=True)
            page = await cursor.fetchall()
            if not page:
                return
            yield page
            first = page[-1].position + 1

    async def _note_streams(self, each: EventRange) -> None:
        async with self._conn.transaction():
            await self._conn.execute(self._sql.forget_archived_streams, {"first": each.first_position})
            await self._conn.execute(
                self._sql.note_archived_streams, {"first": each.first_position, "last": each.last_position}
            )

    async def _drop_archived(self) -> None:
        """Take the tables of archived ranges out of the events, and drop them. Readers find the mark meanwhile."""
        cursor = await row_cursor(self._conn).execute(self._sql.range_tables, {"schema": self._options.schema})
        for table, detaching in await cursor.fetchall():
            events, name = (composed.Identifier(self._options.schema, each) for each in ("events", table))
            if detaching is not None:
                how = composed.SQL("FINALIZE" if detaching else "CONCURRENTLY")
                detach = composed.SQL("ALTER TABLE {} DETACH PARTITION {} {}").format(events, name, how)
                await self._conn.execute(detach)
            await self._conn.execute(composed.SQL("DROP TABLE {}").format(name))

    async def _move_in(self, each: EventRange, erasures: Erasures) -> None:
        manifest = await asyncio.to_thread(self._manifest, each)
        await asyncio.to_thread(self._folder.verify, manifest)
        await self._conn.execute(self._sql.make_range, {"first": each.first_position, "last": each.last_position})
        copy = composed.SQL("COPY {} ({}) FROM STDIN").format(
            composed.Identifier(self._options.schema, each.table_name),
            composed.SQL(", ").join(map(composed.Identifier, _COLUMNS)),
        )
        erased: list[int] = []
        async with self._conn.transaction():
            async with self._conn.cursor().copy(copy) as rows:
                async for events in self._blocks(manifest):
                    for event in events:
                        if erasures.cover(event):
                            erased.append(event.position)
                        else:
                            await rows.write_row(_row_of(event, self._sql.payload))
            await self._conn.execute(self._sql.forget_archived, {"positions": erased})
        await when_free(lambda: self._attach(each))

    async def _attach(self, each: EventRange) -> None:
        """Take a range back, without what was deleted for good while its rows were copied."""
        erased = composed.SQL(
            "DELETE FROM {} AS event USING {} AS erased WHERE event.stream = erased.stream "
            "AND event.version < erased.before_version AND event.position <= erased.up_to_position "
            "RETURNING event.position"
        ).format(
            composed.Identifier(self._options.schema, each.table_name),
            composed.Identifier(self._options.schema, "archived_erasures"),
        )
        async with self._conn.transaction():
            await self._conn.execute(self._sql.begin_restore)
            await self._conn.execute(self._sql.lock_order)
            positions = [row[0] for row in await (await row_cursor(self._conn).execute(erased)).fetchall()]
            if positions:
                await self._conn.execute(self._sql.forget_archived, {"positions": positions})
            await self._conn.execute(self._sql.restore_range, {"first": each.first_position})

    async def _rewrite(self, each: EventRange, erasures: Erasures) -> RangeStatus | None:
        manifest = await asyncio.to_thread(self._manifest, each)
        erased = [e.position async for events in self._blocks(manifest) for e in events if erasures.cover(e)]
        if not erased:
            return None

        async def rest() -> AsyncIterator[list[RecordedEvent]]:
            async for events in self._blocks(manifest):
                yield [event for event in events if not erasures.cover(event)]

        written, sha256 = await self._write(self._folder, each, rest())
        about = {
            "first": each.first_position,
            "file": written.file,
            "manifest_sha256": sha256,
            "events": written.events,
            "first_time": written.first_time,
            "last_time": written.last_time,
        }
        # Who is killed in between has still to remove the old file, of which the database knows nothing any more.
        await asyncio.to_thread(self._folder.begin_replacing, manifest.file, written.file)
        async with self._conn.transaction():
            await self._conn.execute(self._sql.replace_archive_file, about)
            await self._conn.execute(self._sql.forget_archived, {"positions": erased})
        await asyncio.to_thread(self._folder.end_replacing, written.file)
        return RangeStatus(each.first_position, each.last_position, "archived", written.events, written.file)

    async def _blocks(self, manifest: Manifest) -> AsyncIterator[list[RecordedEvent]]:
        blocks = self._folder.blocks(manifest, manifest.first_position, manifest.last_position)
        while (block := await asyncio.to_thread(next, blocks, None)) is not None:
            yield block[1]

    def _manifest(self, each: EventRange) -> Manifest:
        return self._folder.manifest(each.file or "", each.manifest_sha256 or "")

    async def _row(self, statement: bytes, wanted: dict[str, Any] | None = None) -> Any:
        return await (await row_cursor(self._conn).execute(statement, wanted)).fetchone()


@asynccontextmanager
async def open_archive(options: StoreOptions) -> AsyncIterator[Archivist]:
    """Open the archive of a partitioned store for the length of the block; nobody else works on it meanwhile.

    Raises ConfigurationError for a store that is not partitioned, SchemaMissing, SchemaOutdated, StoreUnavailable.
    """
    async with ranges_lock(options) as conn:
        yield Archivist(conn, await check_partitioned(conn, options), options)


def _status(each: EventRange, head: int) -> RangeStatus:
    state = "archived" if each.archived_at else "closed" if each.last_position <= head else "open"
    return RangeStatus(each.first_position, each.last_position, state, each.events, each.file)


def _row_of(event: RecordedEvent, payload: str) -> tuple[Any, ...]:
    def stored(raw: bytes | None) -> bytes | str | None:
        return raw if raw is None or payload == "bytea" else raw.decode()

    return (
        event.position,
        event.stream,
        event.version,
        event.id,
        event.type,
        stored(event.raw_data),
        stored(event.raw_metadata),
        event.causation_id,
        event.correlation_id,
        event.created_at,
        event.raw_tags,
        event.schema_version,
    )
