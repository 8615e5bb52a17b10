"""Fills a store with millions of events quickly, as if they had been appended: on the server, past the store.

For what is measured afterwards; the filling itself is never a figure. What is there looks like what has grown: names of
streams are spread over their index, ids rise with time, streams may lie between each other, nothing waits for a vacuum.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg import sql

from benchmarks.payload import STREAM_LENGTH, TYPE

EVENT_BYTES: Final = 620
"""What an event takes on disk with its share of the indexes, and of the room to build them: for estimates."""
MANY: Final = 500_000
"""From so many new events on, the indexes are built when the rows are there, which is several times as fast."""

# The same payload as everybody's, made by the server. Ids are of version 7, a millisecond for a hundred events.
_EVENTS = """
INSERT INTO "headwater"."events"
    ("position", "stream", "version", "event_id", "type", "data", "created_at")
SELECT
    "n",
    'order-' || md5('stream' || ("before" / %(block)s * %(between)s + "before" %% %(between)s))::uuid,
    "before" %% %(block)s / %(between)s + 1,
    (lpad(to_hex(1735689600000 + "n" / 100), 12, '0') || '7' || left("random", 3) || '8' || right("random", 15))::uuid,
    %(type)s,
    ('{"order":"order-' || lpad("n"::text, 12, '0') || '","customer":"customer-' || lpad(("n" %% 9973)::text, 6, '0')
        || '","lines":[{"sku":"sku-' || lpad(("n" %% 797)::text, 5, '0') || '","quantity":' || "n" %% 7 + 1
        || ',"price":"19.95"}],"currency":"EUR","note":"left at the neighbour''s door, please ring"}')::json,
    clock_timestamp()
FROM (
    SELECT "n", "n" - 1 AS "before", md5("n"::text) AS "random"
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS "n"
) AS "numbers"
"""
_STREAMS = """
INSERT INTO "headwater"."streams" ("name", "version")
SELECT 'order-' || md5('stream' || "n")::uuid, %(length)s
FROM generate_series((%(first)s::bigint - 1) / %(length)s, %(last)s::bigint / %(length)s - 1) AS "n"
"""
_HEAD = 'UPDATE "headwater"."head" SET "position" = %(last)s, "created_at" = clock_timestamp()'
_COUNT = 'SELECT count(*) FROM "headwater"."events"'
_INDEXES = """
SELECT
    "i"."indexrelid"::regclass::text, pg_get_indexdef("i"."indexrelid"),
    "c"."conname", pg_get_constraintdef("c"."oid")
FROM pg_index AS "i" LEFT JOIN pg_constraint AS "c" ON "c"."conindid" = "i"."indexrelid" AND "c"."contype" = 'p'
WHERE "i"."indrelid" = '"headwater"."events"'::regclass
ORDER BY "i"."indisprimary" DESC, 1
"""
_EVENTS_A_STEP = 1_000_000


def fill(url: str, events: int, *, length: int = STREAM_LENGTH, between: int = 1) -> list[str]:
    """Bring an untouched store to so many events, in streams of ``length``; returns the streams' names.

    The events of ``between`` streams lie between each other, as those of streams that grow at the same time. The number
    must be a multiple of both. Call again with more to go on.
    """
    if events % (length * between):
        raise ValueError(f"{events} is no multiple of {length * between}")
    with psycopg.connect(url, autocommit=True) as conn:
        have = int(conn.execute(_COUNT).fetchall()[0][0])
        indexes = _drop_indexes(conn) if events - have >= MANY else []
        for first in range(have + 1, events + 1, _EVENTS_A_STEP):
            last = min(first + _EVENTS_A_STEP - 1, events)
            step: dict[str, Any] = {"first": first, "last": last, "length": length, "between": between, "type": TYPE}
            step["block"] = length * between
            with conn.transaction():
                for statement in (_EVENTS, _STREAMS, _HEAD):
                    conn.execute(statement, step)
        for making in indexes:
            conn.execute(making)
        # As it would be in a store that has grown for long: no dead rows to clean up, and the planner knows.
        conn.execute('VACUUM ANALYZE "headwater"."events"')
        conn.execute('VACUUM ANALYZE "headwater"."streams"')
    return [stream_name(number) for number in range(events // length)]


def stream_name(number: int) -> str:
    """Return the name of the stream of that number, as the server makes it: at no particular place in the index."""
    return f"order-{uuid.UUID(hashlib.md5(f'stream{number}'.encode()).hexdigest())}"


def warm(url: str) -> None:
    """Bring the indexes into memory, as they are in a store that is in use. Does nothing where that cannot be done."""
    with psycopg.connect(url, autocommit=True) as conn:
        if conn.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_prewarm'").fetchone():
            conn.execute("CREATE EXTENSION IF NOT EXISTS pg_prewarm")
            conn.execute(
                """SELECT pg_prewarm(indexrelid, 'read') FROM pg_index
                WHERE indrelid IN ('"headwater"."events"'::regclass, '"headwater"."streams"'::regclass)"""
            )


def _drop_indexes(conn: psycopg.Connection[Any]) -> Sequence[sql.SQL | sql.Composed]:
    """Drop the indexes of the events; returns the statements that make them as they were."""
    making: list[sql.SQL | sql.Composed] = []
    table = sql.SQL('ALTER TABLE "headwater"."events" ')
    for name, definition, constraint, key in conn.execute(_INDEXES).fetchall():
        if constraint is None:
            making.append(sql.SQL(definition))
            conn.execute(sql.SQL(f"DROP INDEX {name}"))
        else:
            named = sql.Identifier(constraint)
            making.append(table + sql.SQL("ADD CONSTRAINT {} ").format(named) + sql.SQL(key))
            conn.execute(table + sql.SQL("DROP CONSTRAINT {}").format(named))
    return making
