"""Imports events in bulk: in the given order, each to the end of its stream, thousands in one call.

While the server writes one batch the next is encoded; nothing else is done at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import psycopg

from headwater.storage.checks import check_created_at, check_target
from headwater.storage.errors import InvalidArgument, StreamDeleted
from headwater.storage.model import AppendResult, ImportedEvent, StreamAppend
from headwater.storage.postgres import appending
from headwater.storage.postgres.arrays import NULL_PART, time_part
from headwater.storage.postgres.connect import Connection, row_cursor
from headwater.storage.postgres.encoding import Encoder, Unit
from headwater.storage.postgres.statements import Statements

BATCH: Final = 5_000

Events = AsyncIterable[ImportedEvent] | Iterable[ImportedEvent]


@dataclass(frozen=True, slots=True)
class ImportBatch:
    """Events that are written in one transaction, encoded."""

    events: Sequence[ImportedEvent]
    streams: Sequence[str]
    parameters: Sequence[object]


async def import_events(
    encoder: Encoder, events: Events, batch_size: int, write: Callable[[ImportBatch], Awaitable[int]]
) -> int:
    """Hand batch after batch to ``write``, encoding one ahead; returns how many events were written."""
    written = 0
    under_way: asyncio.Task[int] | None = None
    try:
        async for chunk in _chunks(events, batch_size):
            batch = encode(encoder, chunk)
            if under_way is not None:
                written += await under_way
            under_way = asyncio.ensure_future(write(batch))
            await asyncio.sleep(0)  # let it be sent before the next batch is encoded
        if under_way is not None:
            written += await under_way
    finally:
        if under_way is not None and not under_way.done():
            under_way.cancel()
            await asyncio.gather(under_way, return_exceptions=True)
    return written


def encode(encoder: Encoder, events: Sequence[ImportedEvent]) -> ImportBatch:
    """Encode a batch: each run of events of one stream is an append of its own."""
    for event in events:
        if type(event) is not ImportedEvent:
            raise InvalidArgument("events", f"must yield ImportedEvent, not {type(event).__name__}")
    streams: list[str] = []
    counts: list[int] = []
    for stream, run in groupby(event.stream for event in events):
        streams.append(check_target(stream, "append to"))
        counts.append(sum(1 for _ in run))
    times = None
    if any(event.created_at for event in events):
        times = b"".join(
            [
                NULL_PART if event.created_at is None else time_part(check_created_at("created_at", event.created_at))
                for event in events
            ]
        )
    _, columns = encoder.columns(streams[0], [event.event for event in events], times)
    return ImportBatch(events, streams, encoder.import_parameters(streams, counts, columns))


async def write(conn: Connection, sql: Statements, encoder: Encoder, batch: ImportBatch) -> int:
    """Write a batch in one transaction; returns how many events were written, without those stored before.

    Raises StreamDeleted and DuplicateEvent, after everything that could be written was.
    """
    try:
        cursor = row_cursor(conn)
        await cursor.execute(sql.append, batch.parameters, binary=True)
        row = await cursor.fetchone()
    except psycopg.errors.UniqueViolation:
        return await _write_what_is_new(conn, sql, encoder, batch)
    assert row is not None
    if codes := row[2]:
        raise StreamDeleted(next(name for name, code in zip(batch.streams, codes, strict=True) if code))
    return len(batch.events)


async def _write_what_is_new(conn: Connection, sql: Statements, encoder: Encoder, batch: ImportBatch) -> int:
    """Pass over what an earlier, interrupted import has written already."""
    units: list[Unit] = []
    for (stream, when), run in groupby(batch.events, key=lambda event: (event.stream, event.created_at)):
        units.append(encoder.unit([StreamAppend(stream, [event.event for event in run])], when))
    outcomes = await appending.write(conn, sql, encoder, units, look_first=True)
    if refused := next((outcome for outcome in outcomes if not isinstance(outcome, list)), None):
        raise refused
    results: list[AppendResult] = [result for outcome in outcomes if isinstance(outcome, list) for result in outcome]
    return sum(result.last_version - result.first_version + 1 for result in results if not result.repeated)


async def _chunks(events: Events, size: int) -> AsyncIterator[list[ImportedEvent]]:
    chunk: list[ImportedEvent] = []
    if isinstance(events, AsyncIterable):
        async for event in events:
            chunk.append(event)
            if len(chunk) == size:
                yield chunk
                chunk = []
    else:
        for event in events:
            chunk.append(event)
            if len(chunk) == size:
                yield chunk
                chunk = []
    if chunk:
        yield chunk
