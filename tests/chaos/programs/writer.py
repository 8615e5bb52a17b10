"""A program that appends, whatever breaks: ``python -m tests.chaos.programs.writer NUMBER FILE RATE BATCH STREAMS``.

The ids are made from the writer's and the event's number, so an append that may have been written is sent again until
it is known to be. How many events are known to be written stands in FILE, in eight bytes. SIGTERM lets it finish the
append under way.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from typing import Any, Final

from headwater import NewEvent, StreamAppend, connect
from headwater.storage.errors import CommitUnknown, StoreUnavailable
from tests.chaos.journal import STREAM

PAUSE: Final = 0.05
"""How long until an append that failed is sent again, in seconds."""
SPREAD: Final = 4
"""To how many streams most appends go: then nearly each brings something for every partition of a subscription, so that
what is measured is how long a takeover takes and not how long it had to wait for an event."""
LONE: Final = 8
"""Each so many-th append goes to one stream: that way of the store is broken, too."""


def make(writer: int, number: int) -> NewEvent:
    """Make the event of that number; always the same one."""
    made = uuid.UUID(int=0x7 << 76 | 0x2 << 62 | writer << 96 | number)
    return NewEvent("Placed", {"writer": writer, "number": number, "amount": number % 97}, id=made)


async def append(store: Any, events: Sequence[NewEvent], streams: Sequence[int]) -> None:
    """Append the events to these streams, in turns."""
    if len(streams) == 1:
        await store.append(f"{STREAM}{streams[0]}", events)
    else:
        parts = enumerate(streams)
        await store.append_to_many([StreamAppend(f"{STREAM}{each}", events[n :: len(streams)]) for n, each in parts])


async def write(store: Any, writer: int, file: int, rate: float, batch: int, streams: int) -> None:
    """Append batch after batch at a steady rate; what an outage held up is not made up for."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    chosen, number, due = random.Random(writer), 0, time.monotonic()
    while not stopping.is_set():
        events = [make(writer, number + n) for n in range(1, batch + 1)]
        lone = number // batch % LONE == 0
        to = chosen.sample(range(streams), 1 if lone else min(SPREAD, batch, streams))
        while True:
            try:
                await append(store, events, to)
                break
            except (StoreUnavailable, CommitUnknown):
                await asyncio.sleep(PAUSE)
        number += batch
        os.pwrite(file, number.to_bytes(8, "little"), 0)
        due = max(due + batch / rate, time.monotonic())
        await asyncio.sleep(due - time.monotonic())


async def main(writer: int, path: str, rate: float, batch: int, streams: int) -> None:
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    async with connect(timeout=5, pool_size=2) as store:
        await write(store, writer, file, rate, batch, streams)
    os.close(file)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])))
