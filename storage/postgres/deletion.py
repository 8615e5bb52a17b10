"""Deletes streams softly or for good, takes a soft delete back, and removes the beginnings of streams.

Never removes an event because of a stream that only links to it.
"""

from __future__ import annotations

from typing import Any

from headwater.storage.errors import StreamDeleted, StreamNotFound
from headwater.storage.model import Expected
from headwater.storage.postgres.appending import wrong_version
from headwater.storage.postgres.connect import Connection, row_cursor
from headwater.storage.postgres.encoding import expected_code
from headwater.storage.postgres.statements import Statements

_WRONG_VERSION, _DELETED, _MISSING = 1, 2, 3


async def delete_stream(conn: Connection, sql: Statements, stream: str, expected: Expected, hard: bool) -> None:
    """Delete a stream. Raises StreamNotFound, StreamDeleted, WrongExpectedVersion."""
    wanted = {"stream": stream, "expected": expected_code(expected), "hard": hard}
    version, outcome = await _row(conn, sql.delete_stream, wanted)
    if outcome == _WRONG_VERSION:
        raise wrong_version(stream, expected, version)
    _raise_absent(stream, outcome)


async def undelete_stream(conn: Connection, sql: Statements, stream: str) -> None:
    """Take a soft delete back; nothing happens to a stream that is not deleted. Raises StreamNotFound."""
    if await _row(conn, sql.undelete_stream, {"stream": stream}) is None:
        raise StreamNotFound(stream)


async def truncate_stream(conn: Connection, sql: Statements, stream: str, before: int) -> int:
    """Remove what stands below a version; returns how many own events went. Raises StreamNotFound, StreamDeleted."""
    removed, outcome = await _row(conn, sql.truncate_stream, {"stream": stream, "before": before})
    _raise_absent(stream, outcome)
    return int(removed)


def _raise_absent(stream: str, outcome: int) -> None:
    if outcome == _DELETED:
        raise StreamDeleted(stream)
    if outcome == _MISSING:
        raise StreamNotFound(stream)


async def _row(conn: Connection, statement: bytes, wanted: dict[str, Any]) -> Any:
    return await (await row_cursor(conn).execute(statement, wanted)).fetchone()
