"""A host and its supervisor in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from headwater import ClusterOptions
from headwater.cluster.running import NoNodes
from headwater.cluster.wiring import open_host, open_supervisor


@asynccontextmanager
async def running(options: ClusterOptions) -> AsyncIterator[None]:
    """Run what is registered, for the length of the block; it hands over before that ends."""
    async with (
        open_host(options, "here", {}) as host,
        open_supervisor(options, NoNodes()) as supervisor,
    ):
        tasks = [asyncio.create_task(host.run()), asyncio.create_task(supervisor.run())]
        try:
            yield
            await host.drain()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    task.result()
