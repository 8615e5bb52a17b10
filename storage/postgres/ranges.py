"""Ranges of positions as values, and the questions about them that readers and keepers ask.

Never touches a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from headwater.storage.model import MAX_BIGINT, RecordedEvent
from headwater.storage.postgres.connect import Connection, row_cursor
from headwater.storage.postgres.statements import Statements


class EventRange(NamedTuple):
    """A range of positions, and where its events are."""

    first_position: int
    last_position: int
    table_name: str
    changes: int
    """How often events of it were removed while they were in the database."""
    archived_at: datetime | None
    """None: it is in the database."""
    file: str | None
    manifest_sha256: str | None
    events: int | None
    """How many were archived."""
    first_time: datetime | None
    last_time: datetime | None


class Erasure(NamedTuple):
    """Events that were deleted for good after they had been archived."""

    stream: str
    before_version: int
    up_to_position: int


class Erasures:
    """What no reader of an archive may get."""

    def __init__(self, erasures: Sequence[Erasure]) -> None:
        self._of: dict[str, list[Erasure]] = {}
        for erasure in erasures:
            self._of.setdefault(erasure.stream, []).append(erasure)

    def __bool__(self) -> bool:
        return bool(self._of)

    def cover(self, event: RecordedEvent) -> bool:
        """Return whether an archived event was deleted since."""
        return any(
            event.version < erasure.before_version and event.position <= erasure.up_to_position
            for erasure in self._of.get(event.stream, ())
        )


async def list_ranges(conn: Connection, sql: Statements) -> list[EventRange]:
    """Return all ranges, the oldest first."""
    return [EventRange(*row) for row in await _rows(conn, sql.list_ranges)]


async def archived_ranges(conn: Connection, sql: Statements, low: int = 0, high: int = MAX_BIGINT) -> list[EventRange]:
    """Return the archived ranges that have any of the given positions, the oldest first."""
    return [EventRange(*row) for row in await _rows(conn, sql.archived_ranges, {"low": low, "high": high})]


async def read_erasures(conn: Connection, sql: Statements) -> Erasures:
    """Return what was deleted for good since it was archived."""
    return Erasures([Erasure(*row) for row in await _rows(conn, sql.archived_erasures)])


async def _rows(conn: Connection, statement: bytes, wanted: dict[str, Any] | None = None) -> list[Any]:
    return await (await row_cursor(conn).execute(statement, wanted)).fetchall()
