"""Removes the beginnings of streams by a policy: how old, or how many, events may be.

Never runs by itself: somebody asks for it, each time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from headwater.storage.checks import check_name, check_number
from headwater.storage.errors import InvalidArgument, StreamDeleted, StreamNotFound
from headwater.storage.postgres.connect import row_cursor
from headwater.storage.postgres.store import PostgresEventStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Which streams, and what of each may stay. Give a stream or a category, and an age or a count or both."""

    stream: str | None = None
    """This stream."""
    category: str | None = None
    """Every stream of this category: its name begins with it, up to the first ``-``."""
    max_age: timedelta | None = None
    """Events stay from the first one on that is not older than this."""
    max_count: int | None = None
    """The newest so many versions stay."""

    def __post_init__(self) -> None:
        if (self.stream is None) == (self.category is None):
            raise InvalidArgument("retention", "name a stream or a category")
        check_name("retention", self.stream if self.category is None else self.category)
        if self.max_age is None and self.max_count is None:
            raise InvalidArgument("retention", "say by max_age or max_count what stays")
        if self.max_count is not None:
            check_number("max_count", self.max_count)
        if self.max_age is not None and not timedelta(0) <= self.max_age < timedelta(days=365_000):
            raise InvalidArgument("max_age", "must be from 0 to 1,000 years")


@dataclass(frozen=True, slots=True)
class Truncation:
    """What a policy removes of one stream."""

    stream: str
    version: int
    truncated_before: int
    """The lowest version that is readable now."""
    keep_from: int
    """The lowest version that stays."""
    stream_id: int
    """Which incarnation of the stream that counts in."""
    removed: int | None = None
    """How many events were removed from the database; None: nothing was done yet."""


async def plan(store: PostgresEventStore, retention: Retention, now: datetime | None = None) -> list[Truncation]:
    """Return what a policy would remove now."""
    cutoff = None if retention.max_age is None else (now or datetime.now(UTC)) - retention.max_age
    wanted = {
        "stream": retention.stream,
        "category": retention.category,
        "max_count": retention.max_count,
        "cutoff": cutoff,
    }
    async with store.connection() as conn:
        cursor = await row_cursor(conn).execute(store.sql.retention_plan, wanted)
        return [Truncation(*row) for row in await cursor.fetchall()]


async def retain(store: PostgresEventStore, retention: Retention, now: datetime | None = None) -> list[Truncation]:
    """Remove what a policy says, a stream at a time; returns what was removed. Safe to repeat.

    Raises HardDeletesDisabled for a store that was opened without ``hard_deletes``.
    """
    done = []
    for each in await plan(store, retention, now):
        try:
            async with store.connection() as conn, conn.transaction():
                await conn.execute(store.sql.lock_order)
                if (await store.stream_info(each.stream, conn=conn)).stream_id != each.stream_id:
                    continue  # what is there now was made since, and begins anew
                removed = await store.truncate_stream(each.stream, each.keep_from, conn=conn)
        except (StreamDeleted, StreamNotFound):
            continue  # somebody was faster, and went further
        done.append(replace(each, removed=removed))
    return done
