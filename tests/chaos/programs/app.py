"""The app that is broken: one subscription of each kind. What each handler got, it notes; see ``journal``.

``exact`` and ``exact-sync`` keep their read models in Postgres, in the transaction of the checkpoint.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from headwater import App, Context, Delivery, RecordedEvent
from tests.chaos import journal

app = App("chaos")

WORK: Final = 0.004
"""How long an exactly-once handler pretends to work inside its transaction, so that faults hit open ones."""

IN_FLIGHT: Final = 1000
"""What bounds how many events a takeover may make be handled again, and so the less the better it is judged; see
``report.most_again``."""

TOTALS: Final = """
INSERT INTO "chaos"."totals" AS "t"
    ("subscription", "stream", "events", "amount", "first_version", "last_version", "broken")
SELECT %s::text, "row".*, 0 FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]) AS "row"
ON CONFLICT ("subscription", "stream") DO UPDATE SET
    "events" = "t"."events" + excluded."events",
    "amount" = "t"."amount" + excluded."amount",
    "broken" = "t"."broken" + ("t"."last_version" <> excluded."first_version" - 1)::integer,
    "last_version" = excluded."last_version"
"""
LEDGER: Final = """
INSERT INTO "chaos"."ledger" ("subscription", "partition", "epoch", "first", "last", "events")
VALUES (%s, %s, %s, %s, %s, %s)
"""


def _totals(events: Sequence[RecordedEvent], context: Context) -> list[Any]:
    """Return the columns of TOTALS: what these events add to the read model of each stream."""
    rows: dict[str, list[int]] = {}
    for event in events:
        row = rows.setdefault(event.stream, [0, 0, event.version, 0])
        row[0] += 1
        row[1] += event.data["amount"]
        row[3] = event.version
    return [context.subscription, list(rows), *(list(column) for column in zip(*rows.values(), strict=True))]


def _entry(events: Sequence[RecordedEvent], context: Context) -> list[Any]:
    span = [events[0].position, events[-1].position, len(events)]
    return [context.subscription, context.partition, context.epoch, *span]


@app.subscription("follow", batch_size=200, max_in_flight=IN_FLIGHT)
async def follow(events: list[RecordedEvent], context: Context) -> None:
    journal.write(events, context, time.monotonic())


@app.subscription("parts", batch_size=200, max_in_flight=IN_FLIGHT, partitions=3)
async def parts(events: list[RecordedEvent], context: Context) -> None:
    journal.write(events, context, time.monotonic())


@app.subscription("exact", batch_size=200, max_in_flight=IN_FLIGHT, partitions=2, delivery=Delivery.EXACTLY_ONCE)
async def exact(events: list[RecordedEvent], context: Context) -> None:
    begun = time.monotonic()
    await context.transaction.execute(TOTALS, _totals(events, context))
    journal.write(events, context, begun)
    await asyncio.sleep(WORK)
    await context.transaction.execute(LEDGER, _entry(events, context))


@app.subscription("exact-sync", batch_size=200, max_in_flight=IN_FLIGHT, delivery=Delivery.EXACTLY_ONCE)
def exact_sync(events: list[RecordedEvent], context: Context) -> None:
    begun = time.monotonic()
    context.transaction.execute(TOTALS, _totals(events, context))
    journal.write(events, context, begun)
    time.sleep(WORK)
    context.transaction.execute(LEDGER, _entry(events, context))


@app.subscription("pool", batch_size=100, max_in_flight=IN_FLIGHT, consumers=2, handler_timeout=timedelta(seconds=2))
class Pool:
    """Handled by actors when it runs on Ray."""

    async def handle(self, events: list[RecordedEvent], context: Context) -> None:
        journal.write(events, context, time.monotonic())
