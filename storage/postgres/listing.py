"""Describes one stream, and lists all of them by the page.

Never reads an event.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from headwater.storage.errors import StreamDeleted, StreamNotFound
from headwater.storage.model import ALL, StreamInfo, StreamPage, StreamStatus
from headwater.storage.postgres.connect import Connection, row_cursor
from headwater.storage.postgres.statements import Statements
from headwater.storage.store import StreamSort


class _Row(NamedTuple):
    name: str
    stream_id: int
    version: int
    created_at: datetime | None
    deleted_at: datetime | None
    truncated_before: int


async def stream_info(conn: Connection, sql: Statements, stream: str) -> StreamInfo:
    """Describe a stream, or ALL. Raises StreamNotFound, StreamDeleted."""
    cursor = row_cursor(conn)
    if stream == ALL:
        row = await (await cursor.execute(sql.all_info, binary=True)).fetchone()
        assert row is not None
        return _info(_Row(ALL, 0, row[0], row[1], None, 1))
    row = await (await cursor.execute(sql.stream_info, {"stream": stream}, binary=True)).fetchone()
    if row is None:
        raise StreamNotFound(stream)
    info = _info(_Row(*row))
    if info.status == "deleted":
        raise StreamDeleted(stream)
    return info


async def list_streams(
    conn: Connection, sql: Statements, search: str, sort: StreamSort, descending: bool, page: int, page_size: int
) -> StreamPage:
    """List one page of the streams whose name contains ``search``, ALL among them."""
    cursor = row_cursor(conn)
    counted = await (await cursor.execute(sql.count_streams, {"search": search})).fetchone()
    assert counted is not None
    total = int(counted[0])
    statement = sql.list_streams_descending if descending else sql.list_streams
    wanted = {"search": search, "sort": sort, "limit": page_size, "offset": (page - 1) * page_size}
    rows = await (await cursor.execute(statement, wanted, binary=True)).fetchall()
    return stream_page([_info(_Row(*row)) for row in rows], page, page_size, total)


def stream_page(entries: list[StreamInfo], page: int, page_size: int, total: int) -> StreamPage:
    """Put a page together; an empty list still has one page."""
    return StreamPage(entries, page, page_size, total, max(1, -(-total // page_size)))


def _info(row: _Row) -> StreamInfo:
    status: StreamStatus = "active" if row.deleted_at is None else "deleted"
    return StreamInfo(
        row.name, row.stream_id, row.version, status, row.created_at, row.deleted_at, row.truncated_before
    )
