"""A cluster whose head is gone for good: what needs no new process goes on."""

from __future__ import annotations

import os
import signal

import pytest

from headwater import NewEvent, connect
from headwater.cluster.local import LocalCluster
from headwater.cluster.options import ClusterOptions
from headwater.storage.options import StoreOptions
from tests.distributed.cluster.headless import app
from tests.plugins.processes import descendants
from tests.plugins.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.chaos]


def kill_head() -> None:
    """Kill the head's raylet, and then its control store, which would be started again beside that."""
    below = descendants(os.getpid())
    for mark in ("__internal_head__", "/gcs_server "):
        marked = {process.pid: process for process in below if mark in process.command}
        # What one of them has just begun to start still has its command line.
        (process,) = [process for process in marked.values() if process.parent not in marked]
        os.kill(process.pid, signal.SIGKILL)


async def test_a_handler_actor_that_cannot_be_started_keeps_nothing_else_on_its_host_waiting(database_url: str) -> None:
    options = ClusterOptions.read(StoreOptions(url=database_url), {"HEADWATER_LEASE": "10"})
    async with connect(database_url) as store, LocalCluster(1) as cluster:
        client = await cluster.deploy(app, options)

        async def everything_is_handled() -> bool:
            head = await store.head()
            return all(partition.checkpoint >= head for partition in await client.partitions())

        await store.append("order-0", [NewEvent("Placed")])
        await until(everything_is_handled, deadline=60, what="waiting for both to be at work")
        kill_head()
        for number in range(20):
            await store.append(f"order-{number}", [NewEvent("Placed") for _ in range(10)])
        # Ten seconds of work for the one actor that there is: long before its end the host asks for a second one.
        # Less than the minute after which Ray gives a node up that has no head.
        await until(everything_is_handled, deadline=40, what="waiting for all of it to be handled without a head")
        (apart,) = await client.partitions("apart")
        assert apart.consumers == 1


async def test_a_delivery_that_waits_for_a_handler_actor_says_so_and_nothing_else_waits(database_url: str) -> None:
    options = ClusterOptions.read(StoreOptions(url=database_url), {"HEADWATER_LEASE": "2"})
    async with connect(database_url) as store, LocalCluster(1) as cluster:
        client = await cluster.deploy(app, options)

        async def handled(name: str) -> bool:
            (partition,) = await client.partitions(name)
            return partition.checkpoint >= await store.head()

        await store.append("order-0", [NewEvent("Placed")])
        for name in ("here", "timed"):
            await until(lambda name=name: handled(name), deadline=60, what=f"waiting for {name} to be at work")  # type: ignore[misc]
        kill_head()
        for actor in descendants(os.getpid()):
            if actor.command.startswith("ray::_HandlerActor"):
                os.kill(actor.pid, signal.SIGKILL)
        await store.append("order-0", [NewEvent("Placed")])
        await until(lambda: handled("here"), what="waiting for what needs no actor")

        async def says_so() -> bool:
            (timed,) = await client.partitions("timed")
            return timed.phase == "stuck" and "consumer 0 has ended" in (timed.reason or "")

        # Less than the minute after which Ray gives a node up that has no head.
        await until(says_so, deadline=40, what="waiting for the reason to be told")
        (timed,) = await client.partitions("timed")
        assert (timed.parked, timed.checkpoint) == (0, 1)
