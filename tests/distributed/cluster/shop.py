"""The app that the nodes of these tests run: what each handler did stands in the table ``handled``."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Any

import psycopg

from headwater import App, Context, Delivery, Filter, RecordedEvent
from tests.plugins.waiting import wait_until

app = App("shop")

INSERT = 'INSERT INTO "handled" ("subscription", "position", "process") SELECT %s, unnest(%s::bigint[]), %s'


@app.subscription("exact", delivery=Delivery.EXACTLY_ONCE, batch_size=50)
async def exact(events: list[RecordedEvent], context: Context) -> None:
    await context.transaction.execute(INSERT, ["exact", [event.position for event in events], os.getpid()])


@app.subscription("second", delivery=Delivery.EXACTLY_ONCE, batch_size=50)
def second(events: list[RecordedEvent], context: Context) -> None:
    context.transaction.execute(INSERT, ["second", [event.position for event in events], os.getpid()])


@app.subscription("pool", consumers=2)
class Pool:
    """Handled by actors: a ``Bomb`` ends the one that gets it first; who gets a ``Meet`` waits for another."""

    def start(self) -> None:
        self.conn: psycopg.Connection[Any] = psycopg.connect(os.environ["SHOP_DATABASE_URL"], autocommit=True)

    def handle(self, event: RecordedEvent, context: Context) -> None:
        if event.type == "Bomb" and context.attempt == 1:
            os._exit(3)
        self.conn.execute(INSERT, ["pool", [event.position], os.getpid()])
        if event.type == "Meet":
            wait_until(self._somebody_else_is_here, what="waiting for another consumer")

    def _somebody_else_is_here(self) -> bool:
        query = 'SELECT count(DISTINCT "process") > 1 FROM "handled" WHERE "subscription" = %s'
        return bool(self.conn.execute(query, ["pool"]).fetchone()[0])  # type: ignore[index]


@app.subscription("scaled", consumers=(1, 3), idle_after=timedelta(seconds=1), where=Filter(types=("Work",)))
class Scaled:
    """Slow until as many as there may be have something to do, whatever a machine takes to start them; then less so."""

    def start(self) -> None:
        self.conn: psycopg.Connection[Any] = psycopg.connect(os.environ["SHOP_DATABASE_URL"], autocommit=True)

    def handle(self, event: RecordedEvent) -> None:
        self.conn.execute(INSERT, ["scaled", [event.position], os.getpid()])
        wait_until(self._all_are_here, deadline=60, what="waiting for the most consumers")
        time.sleep(0.05)

    def _all_are_here(self) -> bool:
        query = 'SELECT count(DISTINCT "process") >= 3 FROM "handled" WHERE "subscription" = %s'
        return bool(self.conn.execute(query, ["scaled"]).fetchone()[0])  # type: ignore[index]


@app.subscription("slow", consumers=1, where=Filter(types=("Slow",)), handler_timeout=timedelta(seconds=1))
class SlowToStart:
    """Takes longer to start than it may take over a delivery, and its first process ends at the first event."""

    def start(self) -> None:
        time.sleep(1.5)

    def handle(self, event: RecordedEvent, context: Context) -> None:
        if context.attempt == 1:
            os._exit(3)
