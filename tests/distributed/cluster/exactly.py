"""Two exactly-once subscriptions, for tests of several clusters: what they did stands in the table ``handled``."""

from __future__ import annotations

from headwater import App, Context, Delivery, RecordedEvent

app = App("exactly")

INSERT = 'INSERT INTO "handled" ("subscription", "position") SELECT %s, unnest(%s::bigint[])'


@app.subscription("one", delivery=Delivery.EXACTLY_ONCE, batch_size=20)
async def one(events: list[RecordedEvent], context: Context) -> None:
    await context.transaction.execute(INSERT, ["one", [event.position for event in events]])


@app.subscription("two", delivery=Delivery.EXACTLY_ONCE, batch_size=20)
def two(events: list[RecordedEvent], context: Context) -> None:
    context.transaction.execute(INSERT, ["two", [event.position for event in events]])
