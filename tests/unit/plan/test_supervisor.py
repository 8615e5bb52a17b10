"""A supervisor starts hosts with back-off, plans only while it may, and outlives what does not answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from headwater import ClusterOptions, StoreOptions, StoreUnavailable
from headwater.cluster.plan import Assignment, HostFacts, PartitionFacts
from headwater.cluster.supervisor import Backoff, NodeFacts, Supervisor
from headwater.storage.leases import News
from tests.plugins.waiting import until

OPTIONS = ClusterOptions(
    store=StoreOptions(url="postgresql://nobody@nowhere/nothing"), plan_interval=timedelta(milliseconds=1)
)
NODE = NodeFacts(node_id="1", name="node-1")


@dataclass
class World:
    """One node, and the database as a supervisor sees it."""

    running: bool = False
    starts: int = 0
    mine: bool = True
    outage: bool = False
    asked: int = 0
    written: list[Assignment] = field(default_factory=list)
    present: tuple[str, ...] = ("host-1",)
    wanted: str | None = None
    """Who should own the partition, as it is written down."""

    async def alive(self) -> list[NodeFacts]:
        return [NODE]

    async def has_host(self, node: NodeFacts) -> bool:
        return self.running

    async def start_host(self, node: NodeFacts) -> None:
        self.starts += 1
        self.running = True

    async def supervise(self) -> bool:
        self.asked += 1
        if self.outage:
            raise StoreUnavailable("the database is away")
        return self.mine

    async def hosts(self) -> list[HostFacts]:
        return [HostFacts(host=host, node=host.replace("host", "node")) for host in self.present]

    async def partitions(self) -> list[PartitionFacts]:
        return [PartitionFacts(lock_id=1, subscription="totals", wanted_owner=self.wanted)]

    async def assign(self, assignments: Sequence[Assignment]) -> None:
        self.written.extend(assignments)

    async def replace(self) -> None: ...

    async def repartition(self) -> list[str]:
        return []

    async def tidy(self) -> None: ...


@contextlib.asynccontextmanager
async def supervised(world: World) -> AsyncIterator[None]:
    task = asyncio.create_task(Supervisor(OPTIONS, world, world).run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parity("T087", "T090")
async def test_each_node_gets_a_host_and_another_one_when_it_has_died() -> None:
    world = World()
    async with supervised(world):
        await until(lambda: world.starts == 1)
        world.running = False
        await until(lambda: world.starts == 2)


async def test_only_the_one_that_may_writes_the_plan() -> None:
    world = World(mine=False)
    async with supervised(world):
        await until(lambda: world.asked > 3)
        assert world.written == []
        world.mine = True
        await until(lambda: bool(world.written))
    assert world.written[0] == Assignment(1, "host-1", None)


async def test_an_outage_of_the_database_keeps_hosts_from_nothing() -> None:
    world = World(outage=True)
    async with supervised(world):
        await until(lambda: world.starts == 1)
        await until(lambda: world.asked > 3)
        world.outage = False
        await until(lambda: bool(world.written))


async def test_news_are_planned_for_long_before_the_next_look() -> None:
    world = World(running=True)
    supervisor = Supervisor(replace(OPTIONS, plan_interval=timedelta(hours=1)), world, world)
    task = asyncio.create_task(supervisor.run())
    for plans, news in enumerate((News.WANTED, News.READY), start=1):
        await until(lambda plans=plans: len(world.written) == plans)  # type: ignore[misc]  # the lambda is used at once
        supervisor.tell(news)
    await until(lambda: len(world.written) == 3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_hosts_that_lost_their_sessions_with_the_supervisor_are_waited_for() -> None:
    world = World(running=True, wanted="host-1", present=("host-2",))
    supervisor = Supervisor(replace(OPTIONS, lease=timedelta(hours=1)), world, world)
    supervisor.tell(News.CONNECTED)
    task = asyncio.create_task(supervisor.run())
    await until(lambda: world.asked > 10)
    assert world.written == []
    world.present = ("host-1", "host-2")
    await until(lambda: bool(world.written))
    assert world.written[0] == Assignment(1, "host-1", "host-2")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_hosts_that_do_not_come_back_are_done_without_after_a_while() -> None:
    world = World(running=True, wanted="host-1", present=("host-2",))
    supervisor = Supervisor(replace(OPTIONS, lease=timedelta(milliseconds=1)), world, world)
    supervisor.tell(News.CONNECTED)
    task = asyncio.create_task(supervisor.run())
    await until(lambda: bool(world.written))
    assert world.written[0] == Assignment(1, "host-2", None)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_plan_that_an_outage_came_between_is_not_written() -> None:
    class Interrupted(World):
        async def hosts(self) -> list[HostFacts]:
            self.mine = False  # the session has ended while it was read
            return await super().hosts()

    world = Interrupted(running=True)
    async with supervised(world):
        await until(lambda: world.asked > 3)
    assert world.written == []


@pytest.mark.parity("T088")
def test_what_fails_again_and_again_is_tried_ever_more_seldom() -> None:
    backoff = Backoff(first=1.0, most=8.0)
    tried = [now for now in range(40) if backoff.due("node", float(now))]
    assert tried == [0, 1, 3, 7, 15, 23, 31, 39]


def test_what_has_lasted_is_tried_again_at_once() -> None:
    backoff = Backoff(first=1.0, most=8.0)
    for now in (0.0, 1.0, 3.0, 7.0):
        assert backoff.due("node", now)
    assert backoff.due("node", 100.0)
    assert not backoff.due("node", 100.5)
    assert backoff.due("node", 101.0)
