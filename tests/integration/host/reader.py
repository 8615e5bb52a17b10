"""A read model in two versions, run by the processes of these tests: how each event came stands in ``readings``."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import psycopg

from headwater import App, Context, RecordedEvent, RetryPolicy

app = App("reader")

INSERT = 'INSERT INTO "readings" VALUES (%s, %s, %s, %s, %s)'
GATE = 'SELECT NOT EXISTS (SELECT FROM "gate" WHERE "name" = %s AND "position" <= %s)'


class Reading:
    """Notes each event, and stops before the position at which a gate is shut."""

    def start(self) -> None:
        self.conn: psycopg.Connection[Any] = psycopg.connect(app.store_options.url, autocommit=True)

    def handle(self, event: RecordedEvent, context: Context) -> None:
        if not self._open(context.subscription, event.position):
            self.conn.execute('INSERT INTO "held" VALUES (%s, %s)', [context.subscription, event.position])
        while not self._open(context.subscription, event.position):
            time.sleep(0.01)
        row: Sequence[Any] = (
            context.subscription, event.position, context.replaying, context.side_effects, os.getpid(),
        )  # fmt: skip
        self.conn.execute(INSERT, row)

    def _open(self, name: str, position: int) -> bool:
        found = self.conn.execute(GATE, [name, position]).fetchone()
        return found is not None and bool(found[0])

    def stop(self) -> None:
        self.conn.close()


DRAIN_TIMEOUT = timedelta(seconds=float(os.environ.get("READER_DRAIN_TIMEOUT", "1")))
"""Short, because handlers that are held up at a gate are not waited for."""

app.subscription("old", drain_timeout=DRAIN_TIMEOUT, retry=RetryPolicy(attempts=1000))(Reading)
