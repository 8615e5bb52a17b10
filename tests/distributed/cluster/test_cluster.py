"""Subscriptions on real Ray nodes of this machine: shared out, taken over, moved, drained."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress

import psycopg
import pytest
import pytest_asyncio

from headwater import NewEvent, connect
from headwater.cluster.client import Client
from headwater.cluster.local import LocalCluster
from headwater.cluster.options import ClusterOptions
from headwater.cluster.status import PartitionStatus
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.store import PostgresEventStore
from tests.distributed.cluster.shop import app
from tests.plugins.databases import new_database
from tests.plugins.processes import descendants
from tests.plugins.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


class World:
    """A cluster of three nodes that runs the shop."""

    def __init__(self, url: str, cluster: LocalCluster, client: Client, store: PostgresEventStore) -> None:
        self.url = url
        self.cluster = cluster
        self.client = client
        self.store = store

    async def append(self, events: int, *, kind: str = "Placed", stream: str = "order-1") -> None:
        await self.store.append(stream, [NewEvent(kind) for _ in range(events)])

    async def settled(self) -> dict[tuple[str, int], str | None]:
        """Wait until the live nodes share the partitions, each with a standby elsewhere; returns the owners."""

        async def shared_out() -> bool:
            partitions = await self.client.partitions()
            counts = Counter(p.node for p in partitions)
            owns = [counts[node] for node in self.cluster.nodes]
            return (
                sum(owns) == len(partitions)
                and max(owns) - min(owns) <= 1
                and all(p.standby in self.cluster.nodes and p.standby != p.node for p in partitions)
            )

        await until(shared_out, deadline=60, what="waiting until the nodes share the partitions")
        return await self.cluster.owners()

    async def caught_up(self) -> list[PartitionStatus]:
        async def at_the_head() -> bool:
            head = await self.store.head()
            return all(p.checkpoint >= head for p in await self.client.partitions())

        await until(at_the_head, deadline=60, what="waiting until every subscription is at the head")
        return await self.client.partitions()

    async def check(self) -> None:
        """Everything was handled: exactly once where that is promised, at least once elsewhere."""
        await self.caught_up()
        everything = list(range(1, await self.store.head() + 1))
        with psycopg.connect(self.url) as conn:
            rows = conn.execute('SELECT "subscription", "position" FROM "handled" ORDER BY "position"').fetchall()
        for exact in ("exact", "second"):
            assert [position for subscription, position in rows if subscription == exact] == everything
        assert {position for subscription, position in rows if subscription == "pool"} == set(everything)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(database_server: str, template_database: str) -> AsyncIterator[World]:
    with new_database(database_server, template_database) as url:
        with psycopg.connect(url) as conn:
            conn.execute('CREATE TABLE "handled" ("subscription" text, "position" bigint, "process" integer)')
        os.environ["SHOP_DATABASE_URL"] = url
        # One test waits until it ends; in the others nobody must lose it who gets no processor for two seconds.
        options = ClusterOptions.read(StoreOptions(url=url), {"HEADWATER_LEASE": "5"})
        async with connect(url) as store, LocalCluster(3) as cluster:
            client = await cluster.deploy(app, options)
            yield World(url, cluster, client, store)
        del os.environ["SHOP_DATABASE_URL"]


@pytest.mark.parity("L27")
async def test_the_nodes_share_the_subscriptions_and_handle_everything(world: World) -> None:
    owners = await world.settled()
    assert set(owners.values()) == set(world.cluster.nodes)
    await world.append(100)
    await world.check()


async def test_hosts_and_handler_actors_are_not_kept_from_the_processor(world: World) -> None:
    await world.settled()
    actors = [p for p in descendants(os.getpid()) if p.command.startswith(("ray::_HostActor", "ray::_HandlerActor"))]
    niceness = set()
    for actor in actors:
        with suppress(ProcessLookupError):  # one that another test has done with may just be ending
            niceness.add(os.getpriority(os.PRIO_PROCESS, actor.pid))
    assert niceness
    assert max(niceness) <= os.getpriority(os.PRIO_PROCESS, 0)


async def test_handler_actors_share_the_work_and_one_that_dies_is_replaced(world: World) -> None:
    await world.settled()
    for kind in ("Meet", "Bomb"):
        for number in range(2):
            await world.append(1, kind=kind, stream=f"order-{number}")
    await world.check()


async def test_handler_actors_become_more_under_load_and_fewer_again(world: World) -> None:
    await world.settled()

    async def consumers() -> int | None:
        (partition,) = await world.client.partitions("scaled")
        return partition.consumers

    async def as_many(number: int) -> bool:
        return await consumers() == number

    await until(lambda: as_many(1), deadline=60, what="waiting for the least")
    for number in range(20):
        await world.append(20, kind="Work", stream=f"order-{number}")
    await until(lambda: as_many(3), deadline=60, what="waiting for the most")
    await world.check()
    with psycopg.connect(world.url) as conn:
        query = """SELECT count(DISTINCT "process"), count(DISTINCT "position"), count(*) FROM "handled"
            WHERE "subscription" = 'scaled'"""
        assert conn.execute(query).fetchone() == (3, 400, 400)
    await until(lambda: as_many(1), deadline=60, what="waiting for the least again")


async def test_a_handler_actor_that_starts_slower_than_a_delivery_may_take_is_replaced(world: World) -> None:
    await world.settled()
    await world.append(1, kind="Slow")
    slow = next(p for p in await world.caught_up() if p.subscription == "slow")
    assert slow.parked_ever == 0


async def test_a_killed_node_is_taken_over_and_nothing_is_lost_or_repeated(world: World) -> None:
    owners = await world.settled()
    await world.append(100)
    victim = owners["exact", 0] or ""
    await world.cluster.kill_node(victim)
    await world.append(100)
    await world.check()
    assert victim not in (await world.cluster.owners()).values()
    await world.cluster.add_node()
    await world.settled()


async def test_a_frozen_node_is_taken_over_and_is_harmless_when_it_thaws(world: World) -> None:
    owners = await world.settled()
    frozen = owners["exact", 0] or ""
    await world.append(50)
    world.cluster.signal_node(frozen, signal.SIGSTOP)
    await world.append(50)
    await world.caught_up()
    world.cluster.signal_node(frozen, signal.SIGCONT)
    await world.append(50)
    await world.check()
    await world.cluster.kill_node(frozen)
    await world.cluster.add_node()
    await world.settled()


async def test_an_operator_moves_a_subscription_and_nothing_is_repeated(world: World) -> None:
    owners = await world.settled()
    before = {p.subscription: p.redelivered for p in await world.client.partitions()}
    target = next(node for node in world.cluster.nodes if node != owners["second", 0])
    await world.client.move("second", target)
    await world.append(50)

    async def moved() -> bool:
        return (await world.cluster.owners())["second", 0] == target

    await until(moved, deadline=60, what="waiting for the move")
    await world.append(50)
    await world.check()
    after = {p.subscription: p.redelivered for p in await world.client.partitions()}
    assert after["second"] == before["second"]


async def test_a_drained_node_hands_over_and_gets_nothing_again(world: World) -> None:
    owners = await world.settled()
    node = owners["exact", 0] or ""
    await world.client.drain(node)

    async def empty() -> bool:
        return all(host.node != node for host in await world.client.hosts())

    await until(empty, deadline=60, what="waiting until the drained host has ended")
    await world.append(50)
    await world.check()
    await world.cluster.kill_node(node)
    await world.cluster.add_node()
    await world.settled()
