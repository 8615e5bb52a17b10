"""The owner's end of a handler actor, without any cluster."""

from __future__ import annotations

import subprocess
import sys

# In a process of its own: Ray is not imported where tests run.
PROGRAM = """
import asyncio
from types import SimpleNamespace

from headwater import SubscriptionOptions
from headwater.cluster import actors
from headwater.cluster.options import ClusterOptions
from headwater.storage.leases import Grant, PartitionKey, Progress
from headwater.storage.options import StoreOptions
from headwater.subscriptions.ports import Delivered

async def main():
    killed, begun = [], asyncio.Event()
    actors.ray.kill = killed.append
    actors.memory.resident = lambda pid: 2
    options = ClusterOptions(store=StoreOptions(url="postgresql://nobody@nowhere/nothing"))
    consumer = actors.ActorConsumer(options, "0" * 56, "shop:totals", SubscriptionOptions(consumers=1), 0)

    async def never(packed):
        begun.set()
        await asyncio.Event().wait()

    actor = consumer._actor = SimpleNamespace(handle=SimpleNamespace(remote=never))
    grant = Grant(PartitionKey("totals", 0, 1), 1, "host", 1, Progress(0))
    handling = asyncio.create_task(consumer.handle(Delivered(1, [], 1, grant)))
    await begun.wait()
    await consumer._watch_memory(actor, 0, 1)
    handling.cancel()
    await asyncio.wait([handling])
    print(handling.cancelled(), killed == [actor])

asyncio.run(main())
"""


def test_a_delivery_that_is_given_up_just_after_its_actor_was_ended_for_its_memory_kills_nobody_else() -> None:
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout == "True True\n"
