"""An app whose handlers fail until they are mended: each call of them stands in the table ``handled``."""

from __future__ import annotations

import os
from datetime import timedelta

import psycopg

from headwater import App, OnFailure, RecordedEvent, RetryPolicy

app = App("broken")

INSERT = 'INSERT INTO "handled" ("subscription", "position") VALUES (%s, %s)'
SOON = timedelta(milliseconds=10)


def fail(subscription: str, event: RecordedEvent) -> None:
    with psycopg.connect(app.store_options.url, autocommit=True) as conn:
        conn.execute(INSERT, [subscription, event.position])
    if "MENDED" not in os.environ:
        raise ValueError(f"no customer of {event.position}")


@app.subscription("stops", retry=RetryPolicy(attempts=2, first_delay=SOON, then=OnFailure.STOP))
def stops(event: RecordedEvent) -> None:
    fail("stops", event)


@app.subscription("breaks", retry=RetryPolicy(attempts=1, then=OnFailure.SKIP), breaker=3)
def breaks(event: RecordedEvent) -> None:
    fail("breaks", event)
