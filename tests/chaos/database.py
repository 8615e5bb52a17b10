"""What the database itself says at the end: about the events, the read models, and what former owners got through."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import psycopg

JUDGE: Final = (Path(__file__).parent / "judge.sql").read_text()

EVENTS: Final = 'SELECT count(*), coalesce(min("position"), 1), coalesce(max("position"), 0) FROM "headwater"."events"'
WRITERS: Final = """
SELECT ("data" ->> 'writer')::bigint, count(*), count(DISTINCT ("data" ->> 'number')::bigint),
    max(("data" ->> 'number')::bigint)
FROM "headwater"."events" GROUP BY 1
"""
DISORDER: Final = """
SELECT count(*) FROM (
    SELECT "version" - lag("version", 1, 0::bigint) OVER "stream" AS "step",
        ("data" ->> 'number')::bigint - lag(("data" ->> 'number')::bigint, 1, 0::bigint) OVER "writer" AS "rise"
    FROM "headwater"."events"
    WINDOW "stream" AS (PARTITION BY "stream" ORDER BY "position"),
        "writer" AS (PARTITION BY "stream", "data" ->> 'writer' ORDER BY "position")
) AS "steps" WHERE "step" <> 1 OR "rise" <= 0
"""
TIMES: Final = """
SELECT count(*) FROM (
    SELECT "created_at" < lag("created_at") OVER (ORDER BY "position") AS "fell" FROM "headwater"."events"
) AS "steps" WHERE "fell"
"""
INEXACT: Final = """
SELECT count(*) FROM (
    SELECT "stream", count(*) AS "events", sum(("data" ->> 'amount')::bigint) AS "amount"
    FROM "headwater"."events" GROUP BY "stream"
) AS "truth"
FULL JOIN (SELECT * FROM "chaos"."totals" WHERE "subscription" = %s) AS "model" USING ("stream")
WHERE ("truth"."events", "truth"."amount", 0) IS DISTINCT FROM ("model"."events", "model"."amount", "model"."broken")
"""
STALE: Final = 'SELECT "what", "details"::text FROM "chaos"."stale_writes" ORDER BY "at"'
PARKED: Final = 'SELECT count(*) FROM "headwater"."parked_events"'


def install(conn: psycopg.Connection[Any]) -> None:
    """Put the judge beside the product's tables."""
    conn.execute(JUDGE.encode())


def stale_writes(conn: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """Return what former owners got through."""
    return conn.execute(STALE).fetchall()


def problems(conn: psycopg.Connection[Any], written: Mapping[int, int], exact: tuple[str, ...]) -> list[str]:
    """Return what is wrong with the events, and with the read models of the exactly-once subscriptions."""
    found = []
    ((count, first, last),) = conn.execute(EVENTS).fetchall()
    if (count, first) != (last, 1):
        found.append(f"positions have gaps: {count} events from {first} to {last}")
    rows = {writer: rest for writer, *rest in conn.execute(WRITERS).fetchall()}
    for writer, number in written.items():
        if rows.get(writer, [0, 0, 0]) != [number] * 3:
            found.append(
                f"writer {writer} has written {number}, the store has (all, different, last) {rows.get(writer)}"
            )
    for query, what in ((DISORDER, "events out of their stream's order"), (TIMES, "times that fall")):
        ((number,),) = conn.execute(query.encode()).fetchall()
        if number:
            found.append(f"{number} {what}")
    for subscription in exact:
        ((number,),) = conn.execute(INEXACT, [subscription]).fetchall()
        if number:
            found.append(f"the read model of {subscription} is wrong for {number} streams")
    ((number,),) = conn.execute(PARKED).fetchall()
    if number:
        found.append(f"{number} events are parked")
    return found
