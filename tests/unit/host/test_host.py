"""A host does what it is assigned, under leases; with in-memory leases, and fakes at its ports only."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from headwater import EVERYTHING, EventPage, Filter, ImportPathError, RecordedEvent, SubscriptionOptions
from headwater.cluster import host as host_module
from headwater.cluster.bell import Bell
from headwater.cluster.crew import StartableConsumer
from headwater.cluster.host import Host
from headwater.cluster.options import ClusterOptions
from headwater.cluster.slot import Assigned, Slot
from headwater.storage.leases import Grant, News, PartitionKey
from headwater.storage.memory.subscriptions import MemoryCheckpoints, MemoryCoordination, MemoryLeases
from headwater.storage.options import StoreOptions
from headwater.subscriptions.heads import Heads
from headwater.subscriptions.ports import Checkpoints, Consumer, Delivered
from headwater.subscriptions.runner import SubscriptionRunner
from tests.plugins.waiting import DEADLINE, until

KEY = PartitionKey("totals", 0, 1)
OPTIONS = ClusterOptions(
    store=StoreOptions(url="postgresql://nobody@nowhere/nothing"),
    claim_interval=timedelta(milliseconds=5),
    assignment_interval=timedelta(milliseconds=5),
)


class Log:
    """A log of so many events."""

    def __init__(self, events: int) -> None:
        self.size = events

    async def head(self) -> int:
        return self.size

    async def read_page(self, source: str, after: int, limit: int, *, where: Filter = EVERYTHING) -> EventPage:
        numbers = range(after + 1, min(self.size, after + limit) + 1)
        return EventPage([event(n) for n in numbers], numbers.stop - 1, self.size)


def event(n: int) -> RecordedEvent:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return RecordedEvent(n, "order-1", n, n, uuid.uuid4(), "Placed", b"{}", None, None, None, now, None, 1)


@dataclass
class Recorder:
    """A consumer that remembers; ``gate`` holds deliveries up while it is clear."""

    seen: list[int]
    gate: asyncio.Event
    started: bool = False
    closed: bool = False

    async def start(self) -> None:
        self.started = True

    async def handle(self, delivery: Delivered) -> None:
        await self.gate.wait()
        self.seen.extend(e.position for e in delivery.events)

    async def close(self) -> None:
        self.closed = True


@dataclass
class World:
    """Everything that the hosts of a test share."""

    log: Log = field(default_factory=lambda: Log(10))
    rows: MemoryCoordination = field(default_factory=MemoryCoordination)
    assigned: dict[PartitionKey, Assigned] = field(default_factory=dict)
    seen: list[int] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    consumers: list[Recorder] = field(default_factory=list)
    draining: set[str] = field(default_factory=set)
    obeyed: list[PartitionKey] = field(default_factory=list)
    broken: bool = False
    troubles: dict[str, dict[PartitionKey, str]] = field(default_factory=dict)

    def assign(
        self, owner: str | None, standby: str | None = None, *, paused: bool = False, commanded: bool = True
    ) -> None:
        before = self.assigned.get(KEY)
        self.assigned[KEY] = Assigned(
            key=KEY,
            handler="shop:totals",
            options=SubscriptionOptions(checkpoint_interval=timedelta(milliseconds=1)),
            paused=paused,
            wanted_owner=owner,
            wanted_standby=standby,
            owner=None,
            standby=before.standby if before else None,
            commanded=commanded,
        )

    def make_consumers(self, handler: str, options: SubscriptionOptions) -> Sequence[StartableConsumer]:
        if self.broken:
            raise ImportPathError(f"cannot import {handler!r}")
        self.consumers.append(Recorder(self.seen, self.gate))
        return self.consumers[-1:]


class Directory:
    """What the database would say to one host."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.owners: dict[PartitionKey, str] = {}

    async def assigned(self, host: str) -> tuple[bool, Sequence[Assigned]]:
        rows = [
            replace(a, owner=self.owner(a.key))
            for a in self.world.assigned.values()
            if host in (a.wanted_owner, a.wanted_standby)
        ]
        return host in self.world.draining, rows

    def owner(self, key: PartitionKey) -> str | None:
        return "a" if self.world.rows.row(key).epoch else None

    async def ready(self, host: str, keys: Sequence[PartitionKey]) -> None:
        for key in keys:
            self.world.assigned[key] = replace(self.world.assigned[key], standby=host)

    async def troubles(self, host: str, reasons: Mapping[PartitionKey, str]) -> None:
        self.world.troubles[host] = dict(reasons)

    async def start_draining(self, host: str) -> None:
        self.world.draining.add(host)

    async def obey(self, slots: Sequence[Slot]) -> None:
        self.world.obeyed.extend(slot.key for slot in slots)


@dataclass
class Running:
    host: Host
    leases: MemoryLeases
    task: asyncio.Task[None]

    def phase(self) -> str | None:
        return next((s.runner.status.phase.value for s in self.host.slots if s.runner is not None), None)

    def in_flight(self) -> int:
        return sum(s.runner.status.in_flight for s in self.host.slots if s.runner is not None)


@contextlib.asynccontextmanager
async def running(world: World, name: str, options: ClusterOptions = OPTIONS) -> AsyncIterator[Running]:
    leases = MemoryLeases(world.rows, name)
    checkpoints = MemoryCheckpoints(world.rows)

    def make_runner(options: SubscriptionOptions, grant: Grant, consumers: Sequence[Consumer]) -> SubscriptionRunner:
        return SubscriptionRunner(
            *(options, grant),
            reader=world.log,
            leases=leases,
            checkpoints=checkpoints,
            consumers=consumers,
            heads=heads,
        )

    heads = Heads(world.log, poll_interval=0.01)
    host = Host(
        name,
        options,
        leases=leases,
        directory=Directory(world),
        checkpoints=checkpoints,
        heads=heads,
        make_consumers=world.make_consumers,
        make_runner=make_runner,
    )
    task = asyncio.create_task(host.run())
    try:
        yield Running(host, leases, task)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def world() -> World:
    made = World()
    made.gate.set()
    return made


async def test_an_assigned_partition_is_run_from_where_it_stands(world: World) -> None:
    world.assign("a")
    async with running(world, "a"):
        await until(lambda: world.rows.row(KEY).progress.checkpoint == 10)
        world.log.size = 15
        await until(lambda: world.rows.row(KEY).progress.checkpoint == 15)
    assert world.seen == list(range(1, 16))
    assert world.consumers[0].closed


async def test_a_standby_is_ready_and_takes_over_what_the_owner_loses(world: World) -> None:
    world.assign("a", "b")
    async with running(world, "a") as owner, running(world, "b") as standby:
        await until(lambda: world.rows.row(KEY).progress.checkpoint == 10)
        await until(lambda: world.assigned[KEY].standby == "b")
        assert standby.phase() is None
        owner.leases.end_session()
        world.log.size = 12
        await until(lambda: world.rows.row(KEY).progress.checkpoint == 12)
        assert standby.phase() == "running"
        assert owner.phase() is None
    assert world.seen == list(range(1, 13))


async def test_what_is_no_longer_assigned_is_finished_saved_and_released(world: World) -> None:
    world.assign("a", "b")
    world.gate.clear()
    async with running(world, "a") as owner, running(world, "b") as other:
        await until(owner.in_flight, what="waiting for a delivery that holds the drain up")
        world.assign("b")
        await until(lambda: owner.phase() == "draining")
        world.gate.set()
        await until(lambda: not owner.host.slots)
        await until(lambda: world.rows.row(KEY).progress.checkpoint == 10)
        assert world.rows.row(KEY).redelivered == 0
        await until(lambda: other.phase() == "running")
    assert world.seen == list(range(1, 11))


async def test_a_handler_that_cannot_be_loaded_is_told_to_the_operator(world: World) -> None:
    world.broken = True
    world.assign("a")
    async with running(world, "a"):
        await until(lambda: world.rows.row(KEY).phase == "stuck")
    assert "cannot import 'shop:totals'" in (world.rows.row(KEY).reason or "")


async def test_a_host_says_what_it_cannot_run_until_it_can(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "PREPARE_AGAIN", 0.01)
    world.broken = True
    world.assign("b", "a")
    async with running(world, "a"):
        await until(lambda: "cannot import" in world.troubles.get("a", {}).get(KEY, ""))
        world.broken = False
        await until(lambda: world.troubles["a"] == {})


async def test_a_host_remembers_for_a_while_that_it_could_not_run_what_has_left_it(world: World) -> None:
    world.broken = True
    world.assign("b", "a")
    async with running(world, "a") as host:
        await until(lambda: KEY in world.troubles.get("a", {}))
        world.assign("b")
        await until(lambda: not host.host.slots)
        world.troubles.clear()
        await until(lambda: "a" in world.troubles)
        assert KEY in world.troubles["a"]


async def test_a_wanted_owner_that_cannot_run_it_leaves_the_lease_to_the_standby_that_is_ready(world: World) -> None:
    world.assign("b", "a")
    async with running(world, "a"):
        await until(lambda: world.assigned[KEY].standby == "a")
        world.broken = True
        async with running(world, "b") as troubled:
            await until(lambda: KEY in world.troubles.get("b", {}))
            [slot] = troubled.host.slots
            await until(lambda: slot.assigned.standby == "a")
            assert not slot.may_claim()


async def test_what_ends_by_a_defect_again_and_again_rests_ever_longer_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Slot, grant: Grant, checkpoints: Checkpoints) -> None:
        await checkpoints.report(grant.numbered(7), "running", None)  # as a runner has, before it ends so
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(host_module, "DEFECT_PAUSE", 0.01)
    monkeypatch.setattr(Slot, "run", fail)
    world.assign("a")
    async with running(world, "a"):
        await until(lambda: "tried again after 0.08 s" in (world.rows.row(KEY).reason or ""))
        assert "ZeroDivisionError: a defect" in (world.rows.row(KEY).reason or "")


async def test_a_host_drains_at_once_what_rests_after_a_defect(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: Slot, *_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(host_module, "DEFECT_PAUSE", 3600.0)
    monkeypatch.setattr(host_module, "DEFECT_SELDOM", 3600.0)
    monkeypatch.setattr(Slot, "run", fail)
    world.assign("a")
    async with running(world, "a") as host:
        await until(lambda: world.rows.row(KEY).phase == "stuck")
        async with asyncio.timeout(DEADLINE):
            await host.host.drain()
            await host.task
    assert world.rows.row(KEY).holder is None


async def test_a_drained_host_releases_everything_and_ends(world: World) -> None:
    world.assign("a")
    async with running(world, "a") as host:
        await until(lambda: world.rows.row(KEY).progress.checkpoint == 10)
        await host.host.drain()
        await host.task
    assert world.rows.row(KEY).holder is None
    assert "a" in world.draining


async def test_a_host_that_is_asked_to_drain_in_the_database_does(world: World) -> None:
    world.assign("a")
    async with running(world, "a") as host:
        await until(lambda: host.phase() == "running")
        world.draining.add("a")
        await host.task
    assert world.rows.row(KEY).holder is None


async def test_a_pause_holds_until_it_is_taken_back(world: World) -> None:
    world.assign("a", paused=True)
    async with running(world, "a") as host:
        await until(lambda: host.phase() == "paused")
        assert world.seen == []
        world.assign("a", paused=False)
        await until(lambda: world.rows.row(KEY).progress.checkpoint == 10)


async def test_operators_commands_are_looked_for_where_partitions_run(world: World) -> None:
    world.assign("a")
    async with running(world, "a"):
        await until(lambda: KEY in world.obeyed)


async def test_commands_are_not_looked_for_where_there_are_none(world: World) -> None:
    world.assign("a", commanded=False)
    async with running(world, "a") as one:
        await until(lambda: world.rows.row(KEY).progress.checkpoint == 10)
        await one.host.reconcile()
        assert not world.obeyed
        world.assign("a")
        await until(lambda: KEY in world.obeyed)


async def test_news_are_acted_on_long_before_the_next_look(world: World) -> None:
    seldom = replace(OPTIONS, claim_interval=timedelta(hours=1), assignment_interval=timedelta(hours=1))
    world.assign("a", "b")
    async with running(world, "a", seldom) as one, running(world, "b", seldom) as two:
        await until(lambda: [slot.ready for each in (one, two) for slot in each.host.slots] == [True, True])
        one.host.tell(News.RELEASED)
        await until(lambda: one.phase() == "running")
        world.assign("b")
        for each in (one, two):
            each.host.tell(News.ASSIGNED)
        await until(lambda: not one.host.slots)
        await until(lambda: two.host.slots[0].assigned.wanted_owner == "b")
        two.host.tell(News.RELEASED)
        await until(lambda: two.phase() == "running")


async def test_what_a_lost_session_held_is_claimed_as_soon_as_there_is_another_one(world: World) -> None:
    seldom = replace(OPTIONS, claim_interval=timedelta(hours=1), assignment_interval=timedelta(hours=1))
    world.assign("a")
    async with running(world, "a", seldom) as one:
        await until(lambda: [slot.ready for slot in one.host.slots] == [True])
        one.host.tell(News.CONNECTED)
        await until(lambda: one.phase() == "running")
        one.leases.end_session()
        await until(lambda: one.phase() is None)
        one.leases.reconnect()
        one.host.tell(News.CONNECTED)
        await until(lambda: one.phase() == "running")


async def test_a_partition_whose_runner_ends_after_the_next_session_has_come_is_claimed_at_once(world: World) -> None:
    seldom = replace(OPTIONS, claim_interval=timedelta(hours=1), assignment_interval=timedelta(hours=1))
    world.assign("a")
    async with running(world, "a", seldom) as one:
        await until(lambda: [slot.ready for slot in one.host.slots] == [True])
        one.host.tell(News.CONNECTED)
        await until(lambda: one.phase() == "running")
        before = world.rows.row(KEY).epoch
        one.leases.end_session()
        one.leases.reconnect()
        await until(lambda: world.rows.row(KEY).epoch > before)
        await until(lambda: one.phase() == "running")


async def test_after_an_outage_owners_come_before_standbys(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "OWNERS_FIRST", 3600.0)
    world.assign("a", "b")
    async with running(world, "a") as owner, running(world, "b") as standby:
        await until(lambda: owner.phase() == "running")
        await until(lambda: world.assigned[KEY].standby == "b")
        for each in (owner, standby):
            each.leases.end_session()
            each.leases.reconnect()
        standby.host.tell(News.CONNECTED)
        owner.host.tell(News.CONNECTED)
        epoch = world.rows.row(KEY).epoch
        await until(lambda: world.rows.row(KEY).epoch > epoch)
        await until(lambda: owner.phase() == "running")
        assert standby.phase() is None


async def test_a_standby_does_not_wait_for_an_owner_that_does_not_come_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "OWNERS_FIRST", 0.001)
    world.assign("a", "b")
    async with running(world, "a") as owner, running(world, "b") as standby:
        await until(lambda: owner.phase() == "running")
        await until(lambda: world.assigned[KEY].standby == "b")
        for each in (owner, standby):
            each.leases.end_session()
        standby.leases.reconnect()
        standby.host.tell(News.CONNECTED)
        await until(lambda: standby.phase() == "running")


async def test_a_bell_that_rings_during_a_step_cuts_the_next_pause_short() -> None:
    bell = Bell()
    bell.ring()
    await bell.pause(3600)
    bell.ring()
    bell.ring()
    await bell.pause(3600)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bell.pause(3600), 0.01)
