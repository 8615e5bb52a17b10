"""An app whose events have classes, older shapes and subjects: what its handlers saw stands in the table ``seen``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import psycopg

from headwater import App, Context, Delivery, Encryption, EventTypes, RecordedEvent

app = App("personal", types="personal:types", encryption="personal:encryption")

types = EventTypes()
encryption = Encryption()

INSERT = 'INSERT INTO "seen" ("subscription", "position", "saw", "process") VALUES (%s, %s, %s, %s)'


@types.register(version=2)
@dataclass(frozen=True)
class Registered:
    name: str
    country: str


@types.upcaster("Registered", 1)
def with_country(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "country": "NO"}


def row(subscription: str, event: RecordedEvent) -> list[Any]:
    return [subscription, event.position, repr(event.object), os.getpid()]


@app.subscription("exact", delivery=Delivery.EXACTLY_ONCE)
async def exact(event: RecordedEvent, context: Context) -> None:
    await context.transaction.execute(INSERT, row("exact", event))


@app.subscription("pool", consumers=2, partition_by="data.name")
class Pool:
    def start(self) -> None:
        self.conn: psycopg.Connection[Any] = psycopg.connect(app.store_options.url, autocommit=True)

    def handle(self, event: RecordedEvent) -> None:
        self.conn.execute(INSERT, row("pool", event))

    def stop(self) -> None:
        self.conn.close()
