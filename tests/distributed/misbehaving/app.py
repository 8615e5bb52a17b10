"""An app whose handler does its worst, as its events say: what it got through stands in the table ``handled``."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Any

import psycopg

from headwater import App, Context, Filter, OnFailure, RecordedEvent, RetryPolicy

app = App("misbehaving")

KINDS = ("Poison", "Exit", "Hang", "Leak")
LIMIT = 400 * 2**20


class Misbehaving:
    """Does what the event's type says."""

    def start(self) -> None:
        self.conn: psycopg.Connection[Any] = psycopg.connect(os.environ["MISBEHAVING_DATABASE_URL"], autocommit=True)
        self.hoard: list[bytes] = []

    def handle(self, event: RecordedEvent, context: Context) -> None:
        match event.type:
            case "Poison":
                raise ValueError("poison")
            case "Exit":
                os._exit(3)
            case "Hang":
                while True:
                    time.sleep(60)
            case "Leak":
                while True:
                    self.hoard.append(b"x" * 20 * 2**20)
                    time.sleep(0.01)
        row = (context.subscription, event.position, event.stream)
        self.conn.execute('INSERT INTO "handled" VALUES (%s, %s, %s)', row)


def register(name: str, then: OnFailure, *categories: str) -> None:
    app.subscription(
        name,
        where=Filter(categories=categories),
        consumers=2,
        handler_timeout=timedelta(seconds=4),
        consumer_memory=LIMIT,
        retry=RetryPolicy(attempts=2, first_delay=timedelta(milliseconds=10), then=then),
    )(Misbehaving)


register("parks", OnFailure.PARK, "park")
for kind in KINDS:
    register(f"stops-{kind}", OnFailure.STOP, f"stop{kind}")
