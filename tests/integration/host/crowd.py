"""An app of many exactly-once subscriptions, half of them sync: each delivery wants a connection of its own."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from headwater import App, Context, Delivery, SubscriptionOptions

app = App("crowd")


async def on_loop(event: Any, context: Context) -> None:
    await asyncio.sleep(0.02)


def in_thread(event: Any, context: Context) -> None:
    time.sleep(0.02)


for number in range(8):
    for handler in (on_loop, in_thread):
        app.register(f"{handler.__name__}-{number}", handler, SubscriptionOptions(delivery=Delivery.EXACTLY_ONCE))
