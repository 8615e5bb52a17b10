"""How fast does one subscription catch up over what is stored?

Headwater: in its actor, a batch handler, a checkpoint saved for each batch. The library's subscription keeps no durable
checkpoint. Then the same with four handler actors, and with exactly-once effects in a read model.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import psycopg

from benchmarks.bench import Bench
from benchmarks.candidates import cluster, headwater, library, limit
from benchmarks.fill import fill
from benchmarks.handlers import Count, Upsert
from benchmarks.measure import RATE, Case, Target
from headwater.subscriptions.options import Delivery

EVENTS: Final = 200_000
BATCH: Final = 1_000
CONSUMERS: Final = 4

_READ_MODEL: Final = """
CREATE TABLE "read_model" (
    "subscription" text, "stream" text, "version" bigint, "customer" text,
    PRIMARY KEY ("subscription", "stream", "version")
)
"""


async def cases(bench: Bench) -> AsyncIterator[Case]:
    """Yield one consumer, four of them, and exactly-once."""
    events = 5_000 if bench.effort.quick else EVENTS
    async with bench.database() as url, library.recorder(bench) as recorder:
        await headwater.make_schema(url)
        await asyncio.to_thread(fill, url, events)
        await asyncio.to_thread(recorder.fill, events // 100, 100)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
            await conn.execute(_READ_MODEL)
        async with cluster.running(url) as running, limit.rows(url, 1) as rows:
            references = {
                library.NAME: partial(recorder.subscribe, events),
                limit.SELECT: partial(rows.read_everything, BATCH, events),
            }
            parameters = {"events": events, "batch": BATCH}
            if bench.effort.wants("catch-up"):
                one = partial(running.catch_up, Count, events, batch_size=BATCH, checkpoint_events=BATCH)
                yield Case(
                    "catch-up",
                    {headwater.NAME: one, **references},
                    parameters,
                    [
                        Target(headwater.NAME, figure=RATE, at_least=100_000),
                        Target(headwater.NAME, library.NAME, at_least=1.6),
                        Target(headwater.NAME, limit.SELECT, at_least=0.4),
                    ],
                )
            if bench.effort.wants("catch-up, 4 handler actors"):
                four = partial(running.catch_up, Count, events, batch_size=BATCH, consumers=CONSUMERS)
                yield Case(
                    "catch-up, 4 handler actors",
                    {headwater.NAME: four, **references},
                    parameters,
                    [
                        Target(headwater.NAME, figure=RATE, at_least=50_000),
                        Target(headwater.NAME, library.NAME),
                    ],
                )
            if bench.effort.wants("catch-up, exactly once"):
                exactly = partial(running.catch_up, Upsert, events, batch_size=BATCH, delivery=Delivery.EXACTLY_ONCE)
                yield Case(
                    "catch-up, exactly once",
                    {headwater.NAME: exactly, **references},
                    parameters,
                    [
                        Target(headwater.NAME, figure=RATE, at_least=10_000),
                        Target(headwater.NAME, library.NAME),
                    ],
                )
