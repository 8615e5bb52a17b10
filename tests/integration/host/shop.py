"""The app that the processes of these tests run: what each handler did stands in the table ``handled``."""

from __future__ import annotations

from typing import Any

import psycopg

from headwater import App, Context, Delivery, Filter, RecordedEvent

app = App("shop")

INSERT = 'INSERT INTO "handled" ("subscription", "position") SELECT %s, unnest(%s::bigint[])'


@app.subscription("exact", delivery=Delivery.EXACTLY_ONCE, batch_size=50)
async def exact(events: list[RecordedEvent], context: Context) -> None:
    await context.transaction.execute(INSERT, ["exact", [event.position for event in events]])


@app.subscription("exact-sync", delivery=Delivery.EXACTLY_ONCE, batch_size=50)
def exact_sync(events: list[RecordedEvent], context: Context) -> None:
    context.transaction.execute(INSERT, ["exact-sync", [event.position for event in events]])


@app.subscription("shared", consumers=2, partitions=2, where=Filter(categories=("order",)))
class Shared:
    def start(self) -> None:
        self.conn: psycopg.Connection[Any] = psycopg.connect(app.store_options.url, autocommit=True)

    def handle(self, event: RecordedEvent) -> None:
        self.conn.execute(INSERT, ["shared", [event.position]])

    def stop(self) -> None:
        self.conn.close()
