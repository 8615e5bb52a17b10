"""An app of many exactly-once subscriptions, half of them sync: each delivery wants a connection of its own.

Each handler waits, on that connection, while a test holds the lock ``GATE``.
"""

from __future__ import annotations

from typing import Any, Final

from headwater import App, Context, Delivery, SubscriptionOptions

app = App("crowd")

GATE: Final = 4711
PASS: Final = "SELECT pg_advisory_xact_lock_shared(%s)"


async def on_loop(event: Any, context: Context) -> None:
    await context.transaction.execute(PASS, [GATE])


def in_thread(event: Any, context: Context) -> None:
    context.transaction.execute(PASS, [GATE])


for number in range(8):
    for handler in (on_loop, in_thread):
        app.register(f"{handler.__name__}-{number}", handler, SubscriptionOptions(delivery=Delivery.EXACTLY_ONCE))
