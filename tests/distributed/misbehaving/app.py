"""An app whose handler does its worst, as its events say: what it got through stands in the table ``handled``."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from typing import Any

import psycopg

from headwater import App, Context, Filter, OnFailure, RecordedEvent, RetryPolicy

app = App("misbehaving")

KINDS = ("Poison", "Exit", "Hang", "Leak")
RAISES = ("Cancelled", "Iterated", "Left", "Wordless", "Unpicklable")
"""What is no ordinary error, or none that could travel."""
LIMIT = 400 * 2**20


class Wordless(Exception):
    """An error whose text is broken."""

    def __str__(self) -> str:
        raise ValueError("no text")


class Unpicklable(Exception):
    """An error that cannot be made anew."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


class Misbehaving:
    """Does what the event's type says."""

    def start(self) -> None:
        self.conn: psycopg.Connection[Any] = psycopg.connect(os.environ["MISBEHAVING_DATABASE_URL"], autocommit=True)
        self.hoard: list[bytes] = []

    def handle(self, event: RecordedEvent, context: Context) -> None:
        match event.type:
            case "Poison":
                raise ValueError("poison")
            case "Cancelled":
                raise asyncio.CancelledError
            case "Iterated":
                raise StopIteration
            case "Left":
                raise SystemExit(3)
            case "Wordless":
                raise Wordless
            case "Unpicklable":
                raise Unpicklable(code=7)
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
