"""Imports events in bulk: in the given order, each to the end of its stream, by COPY, thousands in one transaction.

While the server takes in one batch the next is encoded; nothing else is done at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

import psycopg

from headwater.storage.model import ImportedEvent
from headwater.storage.postgres import appending, reading
from headwater.storage.postgres.connect import Connection, row_cursor
from headwater.storage.postgres.encoding import Encoder
from headwater.storage.postgres.import_rows import HEADER, TRAILER, ImportBatch, event_rows, tag_rows
from headwater.storage.postgres.statements import Statements

BATCH: Final = 20_000
SLICE: Final = 100
"""So many events are encoded in a row: few enough that they die young, before the garbage collector looks at them."""

Events = AsyncIterable[ImportedEvent] | Iterable[ImportedEvent]


class Written(NamedTuple):
    """What became of a batch."""

    events: int
    """How many were written now."""
    head: int


class _NotAsOne(Exception):
    """A batch cannot be written as it is: one of its streams is deleted."""


async def import_events(
    encoder: Encoder, events: Events, batch_size: int, write: Callable[[ImportBatch], Awaitable[int]]
) -> int:
    """Hand batch after batch to ``write``, encoding one ahead; returns how many events were written."""
    written = 0
    under_way: asyncio.Task[int] | None = None
    try:
        async for batch in _batches(encoder, events, batch_size):
            if under_way is not None:
                written += await under_way
            under_way = asyncio.ensure_future(write(batch))
        if under_way is not None:
            written += await under_way
    except asyncio.CancelledError:
        if under_way is not None:
            under_way.cancel()
        raise
    finally:
        if under_way is not None:
            # What was handed over before something else failed is written all the same.
            await asyncio.gather(under_way, return_exceptions=True)
    return written


async def write(conn: Connection, sql: Statements, encoder: Encoder, batch: ImportBatch) -> Written:
    """Write a batch in one transaction, passing over events that are stored already.

    Raises StreamDeleted and DuplicateEvent, after everything that could be written was.
    """
    try:
        async with conn.transaction():
            return await _copy(conn, sql, batch)
    except (psycopg.errors.UniqueViolation, psycopg.errors.InsufficientPrivilege, _NotAsOne):
        # Some of it is stored, or cannot be; or this user may append and no more, which takes longer.
        written = await _write_what_is_new(conn, sql, encoder, batch)
        return Written(written, await reading.head(conn, sql))


async def _copy(conn: Connection, sql: Statements, batch: ImportBatch) -> Written:
    cursor = row_cursor(conn)
    await cursor.execute(sql.import_begin, batch.parameters(), binary=True)
    row = await cursor.fetchone()
    assert row is not None
    before, versions, now = row
    if before is None:
        raise _NotAsOne
    versions = dict(zip(batch.streams, versions, strict=True))
    position = before
    async with cursor.copy(sql.import_copy) as copy:
        await copy.write(HEADER)
        for piece in batch.slices:
            # A piece at a time: the server takes in one while the next is made.
            await copy.write(event_rows(piece, position, versions, now))
            position += piece.size
        await copy.write(TRAILER)
    if any(piece.tags is not None for piece in batch.slices):
        async with cursor.copy(sql.import_copy_tags) as copy:
            await copy.write(HEADER)
            at = before
            for piece in batch.slices:
                await copy.write(tag_rows(piece, at))
                at += piece.size
            await copy.write(TRAILER)
    return Written(position - before, position)


async def _write_what_is_new(conn: Connection, sql: Statements, encoder: Encoder, batch: ImportBatch) -> int:
    """Write what an earlier, interrupted import has not written, and what is for streams that are not deleted."""
    units = [unit for piece in batch.slices for unit in piece.units()]
    outcomes = await appending.write(conn, sql, encoder, units, look_first=True)
    if refused := next((outcome for outcome in outcomes if not isinstance(outcome, list)), None):
        raise refused
    results = [result for outcome in outcomes if isinstance(outcome, list) for result in outcome]
    return sum(result.last_version - result.first_version + 1 for result in results if not result.repeated)


async def _batches(encoder: Encoder, events: Events, size: int) -> AsyncIterator[ImportBatch]:
    batch = ImportBatch()
    async for piece in _pieces(events, size):
        batch.add(encoder, piece)
        if batch.size == size:
            yield batch
            batch = ImportBatch()
        # Encoding keeps the loop busy: what is being sent goes on between two pieces.
        await asyncio.sleep(0)
    if batch.size:
        yield batch


async def _pieces(events: Events, size: int) -> AsyncIterator[list[ImportedEvent]]:
    """Yield the events in lists of at most SLICE, none of which reaches over the end of a batch."""
    take = partial(_take_async, aiter(events)) if isinstance(events, AsyncIterable) else partial(_take, iter(events))
    left = size
    while piece := await take(min(SLICE, left)):
        yield piece
        left = left - len(piece) or size


async def _take(events: Iterator[ImportedEvent], most: int) -> list[ImportedEvent]:
    return list(islice(events, most))


async def _take_async(events: AsyncIterator[ImportedEvent], most: int) -> list[ImportedEvent]:
    taken: list[ImportedEvent] = []
    while len(taken) < most:
        try:
            taken.append(await anext(events))
        except StopAsyncIteration:
            break
    return taken
