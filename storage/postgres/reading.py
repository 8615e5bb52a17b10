"""Reads events: one round trip for a plain stream or the store-wide order, more only when something is special.

Never decodes a payload.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.rows import RowMaker

from headwater.storage.errors import StreamDeleted, StreamNotFound
from headwater.storage.filters import matches
from headwater.storage.model import ALL, EVERYTHING, MAX_BIGINT, EventPage, Filter, Gate, RecordedEvent
from headwater.storage.postgres.connect import Connection, event_cursor, events_of, new_event, row_cursor
from headwater.storage.postgres.fetching import can_fetch, fetch
from headwater.storage.postgres.lanes import Lane
from headwater.storage.postgres.statements import Statements

_FIRST_WINDOW: Final = 4_000
_WIDEST_WINDOW: Final = 256_000
"""How many positions one statement looks through at most: a rare match never makes it run for long."""


LONGEST_WAIT: Final = 0.8
"""How long a read waits for an append to begin, in seconds: somewhat longer than a writer without appends keeps its
gate shut, so that it mostly ends with that, and less than after which the server looks for deadlocks."""
LONGEST_APPEND: Final = 0.03
"""How long it then waits for the end of the append, in seconds: others may be committed meanwhile."""


class StreamState(NamedTuple):
    """How a stream stands."""

    version: int
    deleted: bool
    has_links: bool
    stream_id: int


async def read(
    conn: Connection, sql: Statements, stream: str, start: int | None, limit: int, backward: bool
) -> list[RecordedEvent]:
    """Read a stream's events, links included. Raises StreamNotFound, StreamDeleted."""
    if start is None:
        start = MAX_BIGINT if backward else 1
    if stream == ALL:
        return await _rows(
            conn, sql.read_all_backward if backward else sql.read_all_forward, {"start": start, "limit": limit}
        )
    wanted = {"stream": stream, "start": start, "limit": limit}
    events = await _own_rows(conn, sql.read_backward if backward else sql.read_forward, wanted)
    if events:
        return events
    state = await stream_state(conn, sql, stream)
    if state is None:
        raise StreamNotFound(stream)
    if state.deleted:
        raise StreamDeleted(stream)
    if not state.has_links and (start < 1 if backward else start > state.version):
        return []
    # It has links, or was emptied; or it was made, or came back, since the first look, which this one makes good.
    return await _rows(conn, sql.read_linked_backward if backward else sql.read_linked_forward, wanted)


async def read_all(
    conn: Connection, sql: Statements, start: int | None, limit: int, backward: bool, where: Filter
) -> list[RecordedEvent]:
    """Read the store-wide order; a filter is applied by the server."""
    if where == EVERYTHING:
        return await read(conn, sql, ALL, start, limit, backward)
    last = await head(conn, sql)
    found: list[RecordedEvent] = []
    edge = min(start or 1, last + 1) - 1 if not backward else min(last if start is None else start, last)
    width = _FIRST_WINDOW
    while len(found) < limit and (edge > 0 if backward else edge < last):
        end = max(edge - width, 0) if backward else min(edge + width, last)
        low, high = (end, edge) if backward else (edge, end)
        found += await _window(conn, sql, low, high, limit - len(found), where, backward)
        edge, width = end, min(width * 4, _WIDEST_WINDOW)
    return found


async def read_page(conn: Connection, sql: Statements, source: str, after: int, limit: int, where: Filter) -> EventPage:
    """Read what follows ``after``; ``read_to`` passes over what a filter leaves out, and over holes."""
    if source != ALL:
        return await _stream_page(conn, sql, source, after, limit, where)
    if where != EVERYTHING:
        return await _filtered_page(conn, sql, after, limit, where)
    wanted = {"start": min(after + 1, MAX_BIGINT), "limit": limit}
    events = await _rows(conn, sql.read_all_forward, wanted)
    if events and len(events) < limit:
        return EventPage(events, events[-1].position, events[-1].position)
    last = await head(conn, sql)
    if not events and last > after:
        # Appended since, or nothing but holes up to a head that is committed: looking again tells.
        events = await _rows(conn, sql.read_all_forward, wanted)
    if events:
        return EventPage(events, events[-1].position, max(last, events[-1].position))
    return EventPage(events, max(last, after), max(last, after))


async def page_behind(lane: Lane, sql: Statements, gate: Gate, after: int, limit: int, wait: float) -> EventPage:
    """Read what follows ``after`` in the store-wide order as soon as the next append of a session is committed.

    One round trip. Nothing when the append does not begin within ``wait`` seconds, or takes long; what is there already
    when the gate is not shut.
    """
    begin, end = (b"%d" % max(1, round(seconds * 1000)) for seconds in (wait, LONGEST_APPEND))
    waiting = sql.wait_for_append, (begin, gate.number.to_bytes(4), end, gate.session.to_bytes(4))
    try:
        result = await lane.last_of(waiting, (sql.read_all_forward, (min(after + 1, MAX_BIGINT), limit)))
    except psycopg.errors.LockNotAvailable:
        return EventPage((), after, after)
    events = events_of(lane.conn, result)
    read_to = events[-1].position if events else after
    return EventPage(events, read_to, read_to)


async def _filtered_page(conn: Connection, sql: Statements, after: int, limit: int, where: Filter) -> EventPage:
    last = await head(conn, sql)
    edge, width = after, _FIRST_WINDOW
    while edge < last:
        end = min(edge + width, last)
        events = await _window(conn, sql, edge, end, limit, where, backward=False)
        if events:
            return EventPage(events, events[-1].position if len(events) == limit else end, last)
        if width == _WIDEST_WINDOW:
            # Nothing for long: let the caller save how far it came before it looks on.
            return EventPage((), end, last)
        edge, width = end, min(width * 4, _WIDEST_WINDOW)
    return EventPage((), max(last, after), max(last, after))


async def _stream_page(
    conn: Connection, sql: Statements, stream: str, after: int, limit: int, where: Filter
) -> EventPage:
    state = await stream_state(conn, sql, stream)
    if state is None or state.deleted:
        return EventPage((), after, after, absent="missing" if state is None else "deleted")
    version, _, has_links, stream_id = state
    if version <= after:
        return EventPage((), after, after, stream_id)
    wanted = {"stream": stream, "start": after + 1, "limit": limit}
    events = [] if has_links else await _own_rows(conn, sql.read_forward, wanted)
    if not events:
        # Also without links then: the fast path gives nothing of a stream that was linked to, or deleted, since.
        events = await _rows(conn, sql.read_linked_forward, wanted)
    # The version was read first: what it counts is visible now, so a short page has passed over holes only.
    read_to = events[-1].number if len(events) == limit else max(version, events[-1].number if events else 0)
    if where != EVERYTHING:
        events = [event for event in events if matches(where, event)]
    return EventPage(events, read_to, max(version, read_to), stream_id)


async def head(conn: Connection, sql: Statements) -> int:
    """Return the highest position."""
    row = await (await row_cursor(conn).execute(sql.head)).fetchone()
    return int(row[0]) if row else 0


async def position_at(conn: Connection, sql: Statements, when: datetime) -> int:
    """Return the position before the first event created at or after a time."""
    row = await (await row_cursor(conn).execute(sql.position_at, {"when": when})).fetchone()
    return int(row[0]) if row else 0


async def stream_state(conn: Connection, sql: Statements, stream: str) -> StreamState | None:
    """Return how a stream stands; None when it is missing."""
    row = await (await row_cursor(conn).execute(sql.stream_state, {"stream": stream})).fetchone()
    return row and StreamState(*row)


async def _window(
    conn: Connection, sql: Statements, low: int, high: int, limit: int, where: Filter, backward: bool
) -> list[RecordedEvent]:
    wanted = {
        "after": low,
        "to": high,
        "limit": limit,
        "types": list(where.types) or None,
        "streams": list(where.streams) or None,
        "categories": list(where.categories) or None,
        "prefix": where.stream_prefix,
        "tags": list(where.tags) or None,
        "since": where.since,
        "until": where.until,
    }
    cursor = event_cursor(conn)
    await cursor.execute(sql.read_window_backward if backward else sql.read_window, wanted, binary=True)
    return await cursor.fetchall()


async def _rows(conn: Connection, statement: bytes, parameters: Mapping[str, Any]) -> list[RecordedEvent]:
    return await _events(conn, statement, parameters, new_event)


async def _own_rows(conn: Connection, statement: bytes, parameters: Mapping[str, Any]) -> list[RecordedEvent]:
    """Read rows of a plain stream: its name need not be sent for each of them, and the version is the number."""
    stream, new = parameters["stream"], tuple.__new__

    def own_event(row: Any) -> RecordedEvent:
        return new(RecordedEvent, row + (stream, row[1]))  # noqa: RUF005  # (*row, ...) would be a list first

    return await _events(conn, statement, parameters, own_event)


async def _events(
    conn: Connection, statement: bytes, parameters: Mapping[str, Any], make: RowMaker[RecordedEvent]
) -> list[RecordedEvent]:
    if can_fetch(conn):
        return await fetch(conn, statement, parameters, make)
    cursor = event_cursor(conn, make)
    await cursor.execute(statement, parameters, binary=True)
    return await cursor.fetchall()
