"""Fills a store with millions of events quickly, as if they had been appended: on the server, past the store.

For what is measured afterwards; the filling itself is never a figure.
"""

from __future__ import annotations

import psycopg

from benchmarks.payload import STREAM_LENGTH, TYPE

# The same payload as everybody's, made by the server. Ids rise with time, like those that the store gives out.
_EVENTS = """
INSERT INTO "headwater"."events"
    ("position", "stream", "version", "event_id", "type", "data", "created_at")
SELECT
    "n", 'filled-' || ("n" - 1) / %(length)s, ("n" - 1) %% %(length)s + 1,
    (lpad(to_hex("n"), 16, '0') || left(md5("n"::text), 16))::uuid, %(type)s,
    ('{"order":"order-' || lpad("n"::text, 12, '0') || '","customer":"customer-' || lpad(("n" %% 9973)::text, 6, '0')
        || '","lines":[{"sku":"sku-' || lpad(("n" %% 797)::text, 5, '0') || '","quantity":' || "n" %% 7 + 1
        || ',"price":"19.95"}],"currency":"EUR","note":"left at the neighbour''s door, please ring"}')::json,
    clock_timestamp()
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS "n"
"""
_STREAMS = """
INSERT INTO "headwater"."streams" ("name", "version")
SELECT 'filled-' || "n", %(length)s
FROM generate_series((%(first)s::bigint - 1) / %(length)s, %(last)s::bigint / %(length)s - 1) AS "n"
"""
_HEAD = 'UPDATE "headwater"."head" SET "position" = %(last)s, "created_at" = clock_timestamp()'
_COUNT = 'SELECT count(*) FROM "headwater"."events"'
_EVENTS_A_STEP = 1_000_000


def fill(url: str, events: int, *, length: int = STREAM_LENGTH) -> list[str]:
    """Bring an untouched store to so many events, in streams of ``length``; returns the streams' names.

    Call again with more to go on. The number must be a multiple of the length.
    """
    with psycopg.connect(url, autocommit=True) as conn:
        have = int(conn.execute(_COUNT).fetchall()[0][0])
        for first in range(have + 1, events + 1, _EVENTS_A_STEP):
            step = {"first": first, "last": min(first + _EVENTS_A_STEP - 1, events), "length": length, "type": TYPE}
            with conn.transaction():
                for statement in (_EVENTS, _STREAMS, _HEAD):
                    conn.execute(statement, step)
        # As it would be in a store that has grown for long: no dead rows to clean up, and the planner knows.
        conn.execute('VACUUM ANALYZE "headwater"."events"')
        conn.execute('VACUUM ANALYZE "headwater"."streams"')
    return [f"filled-{number}" for number in range(events // length)]
