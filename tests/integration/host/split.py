"""An app whose one subscription has as many partitions as the environment says; what it did stands in ``log``."""

from __future__ import annotations

import os

from headwater import App, Context, Delivery, RecordedEvent

app = App("split")

INSERT = """
    INSERT INTO "log" ("stream", "version", "partition", "partitions")
    SELECT unnest(%s::text[]), unnest(%s::bigint[]), %s, %s
"""
PARTITIONS = int(os.environ.get("SPLIT_PARTITIONS", "1"))


@app.subscription("split", delivery=Delivery.EXACTLY_ONCE, batch_size=7, partitions=PARTITIONS)
async def split(events: list[RecordedEvent], context: Context) -> None:
    streams, versions = [event.stream for event in events], [event.version for event in events]
    await context.transaction.execute(INSERT, [streams, versions, context.partition, PARTITIONS])
