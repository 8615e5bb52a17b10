"""Several Ray clusters on one database: they share the work, and one goes on when another is gone."""

from __future__ import annotations

import os
import signal
from typing import Self

import psycopg
import pytest

from headwater import NewEvent, connect
from headwater.cluster import processes
from headwater.cluster.client import Client
from headwater.cluster.local import LocalCluster
from headwater.cluster.options import ClusterOptions
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.store import PostgresEventStore
from tests.distributed.cluster.exactly import app
from tests.plugins.processes import descendants
from tests.plugins.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.chaos]


@pytest.fixture
def url(database_url: str) -> str:
    with psycopg.connect(database_url) as conn:
        conn.execute('CREATE TABLE "handled" ("subscription" text, "position" bigint)')
    return database_url


class Doomed(LocalCluster):
    """A cluster that can be killed: every process of it, whatever it is, at once."""

    async def __aenter__(self) -> Self:
        before = {process.pid for process in descendants(os.getpid())}
        await super().__aenter__()
        self.roots = [p.pid for p in descendants(os.getpid()) if p.parent == os.getpid() and p.pid not in before]
        return self

    def kill(self) -> None:
        for root in self.roots:
            processes.send(processes.tree(root), signal.SIGKILL)

    def kill_control_store(self) -> None:
        running = {p.pid for root in self.roots for p in descendants(root) if "gcs_server" in p.command}
        for root in self.roots:
            processes.send([p for p in processes.tree(root) if p.pid in running], signal.SIGKILL)


def options(url: str) -> ClusterOptions:
    # Long: what is killed holds it no longer, and nobody else must lose it.
    return ClusterOptions.read(StoreOptions(url=url), {"HEADWATER_LEASE": "10"})


async def owners(client: Client) -> set[str | None]:
    return {partition.node for partition in await client.partitions()}


async def shared_by(client: Client, *nodes: str) -> None:
    async def shared() -> bool:
        return await owners(client) == set(nodes)

    await until(shared, deadline=60, what=f"waiting until {', '.join(nodes)} own everything")


async def check(store: PostgresEventStore, client: Client, url: str) -> None:
    """Append some more, and see that everything was handled exactly once."""
    await store.append("order-1", [NewEvent("Placed") for _ in range(100)])
    head = await store.head()

    async def at_the_head() -> bool:
        return all(partition.checkpoint >= head for partition in await client.partitions())

    await until(at_the_head, deadline=60, what="waiting until every subscription is at the head")
    with psycopg.connect(url) as conn:
        for subscription in ("one", "two"):
            query = 'SELECT "position" FROM "handled" WHERE "subscription" = %s ORDER BY "position"'
            handled = [position for (position,) in conn.execute(query, [subscription]).fetchall()]
            assert handled == list(range(1, head + 1))


async def test_two_clusters_share_the_work_and_one_goes_on_when_the_other_is_killed(url: str) -> None:
    async with connect(url) as store, LocalCluster(1, name="blue") as blue:
        client = await blue.deploy(app, options(url))
        await shared_by(client, "blue-1")
        async with Doomed(1, name="green") as green:
            await green.deploy(None, options(url))
            await shared_by(client, "blue-1", "green-1")
            await check(store, client, url)
            green.kill()
            await shared_by(client, "blue-1")
            await check(store, client, url)


async def test_a_new_cluster_runs_everything_again_when_the_old_one_is_gone(url: str) -> None:
    async with connect(url) as store:
        async with Doomed(1, name="old") as old:
            client = await old.deploy(app, options(url))
            await shared_by(client, "old-1")
            await check(store, client, url)
            old.kill()
        async with LocalCluster(1, name="new") as new:
            client = await new.deploy(None, options(url))
            await shared_by(client, "new-1")
            await check(store, client, url)


async def test_a_head_whose_control_store_is_killed_comes_back_and_nothing_stops(url: str) -> None:
    async with connect(url) as store, Doomed(1) as cluster:
        client = await cluster.deploy(app, options(url))
        await shared_by(client, "node-1")
        (before,) = await client.hosts()
        cluster.kill_control_store()
        await check(store, client, url)
        await cluster.add_node()
        await shared_by(client, "node-1", "node-2")
        await check(store, client, url)
        assert before.host in {host.host for host in await client.hosts()}, "the first host has lived on"
