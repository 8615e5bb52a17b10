"""An operator's command and its effect are one write: whoever owns the partition next finds both, or neither."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from headwater import NewEvent, OnFailure, SubscriptionOptions
from headwater.cluster.client import Client
from headwater.cluster.crew import StartableConsumer
from headwater.cluster.directory import HostDirectory
from headwater.cluster.options import ClusterOptions
from headwater.cluster.replaying import HostReplay
from headwater.cluster.replays import OneReplay
from headwater.cluster.slot import Assigned, Slot
from headwater.storage.errors import StaleEpoch
from headwater.storage.leases import Grant, Progress
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.checkpoints import PostgresCheckpoints
from headwater.storage.postgres.commands import Commands
from headwater.storage.postgres.leases import LeaseSession
from headwater.storage.postgres.placement import PostgresPlacement
from headwater.storage.postgres.registry import Registry
from headwater.storage.postgres.replaying import ReplayCheckpoints, ReplayRange, Replays
from headwater.storage.postgres.store import PostgresEventStore
from headwater.storage.registry import CommandRecord
from headwater.subscriptions.core.seam import share_of
from headwater.subscriptions.ports import Consumer, Delivered, Nack
from headwater.subscriptions.runner import SubscriptionRunner
from tests.plugins.waiting import until

OPTIONS = SubscriptionOptions()


@dataclass
class Handling:
    """A handler that notes what it got, and how; while the gate is shut, it holds on to what it has.

    What it is to park when it gets it again, it wants parked.
    """

    seen: list[tuple[int, bool]] = field(default_factory=list)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    parks_again: set[int] = field(default_factory=set)

    async def start(self) -> None: ...

    async def handle(self, delivery: Delivered) -> None:
        self.entered.set()
        await self.gate.wait()
        self.seen += [(event.position, delivery.replaying) for event in delivery.events]
        if delivery.replaying and any(event.position in self.parks_again for event in delivery.events):
            raise Nack("not twice", OnFailure.PARK)

    async def close(self) -> None: ...


@dataclass
class World:
    """A store, a subscription, and one owner after the other."""

    store: PostgresEventStore
    leases: LeaseSession
    client: Client
    handling: Handling = field(default_factory=Handling)

    def __post_init__(self) -> None:
        pool, sql = self.store.pool, self.store.sql
        self.checkpoints = PostgresCheckpoints(pool, sql)
        self.commands = Commands(pool, sql)
        self.registry = Registry(pool, sql, self.store)
        self.replays = Replays(pool, sql)
        self.directory = HostDirectory(PostgresPlacement(pool, sql), self.commands, self.replays, self.make_replay)

    def make_consumers(self, handler: str, options: SubscriptionOptions) -> Sequence[StartableConsumer]:
        return [self.handling]

    def make_runner(
        self, options: SubscriptionOptions, grant: Grant, consumers: Sequence[Consumer]
    ) -> SubscriptionRunner:
        return SubscriptionRunner(
            options,
            grant,
            reader=self.store,
            leases=self.leases,
            checkpoints=self.checkpoints,
            consumers=consumers,
            boundaries=self.checkpoints,
        )

    def make_replay(self, assigned: Assigned, grant: Grant, command_id: int, found: ReplayRange) -> OneReplay:
        return HostReplay(
            assigned=assigned,
            grant=replace(grant, progress=found.progress),
            found=found,
            reader=self.store,
            leases=self.leases,
            checkpoints=ReplayCheckpoints(self.store.pool, self.store.sql, command_id),
            make_consumers=self.make_consumers,
        )

    async def grant(self) -> Grant:
        """Grant the lease to the next owner: what an earlier one writes from now on is refused."""
        [state] = await self.registry.states("orders")
        # A claim passes over a row that a write of the last owner's still holds.
        [grant] = await until(lambda: self.leases.claim([state.key]), what="waiting for the lease")
        return grant

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[Slot]:
        """Run the partition under a grant of its own; at the end of the block it dies where it is."""
        grant = await self.grant()
        assigned = Assigned(
            key=grant.key, handler="shop:orders", options=OPTIONS, paused=False,
            wanted_owner="here", wanted_standby=None, owner="here", standby=None,
        )  # fmt: skip
        slot = Slot("here", assigned, self.make_consumers, self.make_runner)
        await slot.prepare()
        self.handling.entered.clear()
        running = asyncio.create_task(slot.run(grant, self.checkpoints))
        await until(lambda: slot.runner is not None, what="waiting until the owner runs")
        try:
            yield slot
        finally:
            slot.replays.stop()
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    @property
    def replayed(self) -> list[int]:
        """What was handed out again, as the handler saw it."""
        return [position for position, replaying in self.handling.seen if replaying]

    async def command(self) -> CommandRecord:
        return (await self.commands.audit("orders"))[0]

    async def outcome(self, wanted: str) -> None:
        """Wait until the latest command has this outcome."""

        async def has_it() -> bool:
            return (await self.command()).outcome == wanted

        await until(has_it, what=f"waiting for {wanted!r}")


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    options = StoreOptions(url=database_url)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(await PostgresEventStore.open(options=options))
        client = await stack.enter_async_context(await Client.open(ClusterOptions(store=options)))
        # Long: an owner dies here when it is said, and not because somebody was kept waiting.
        leases = LeaseSession(options, host="here", lease=timedelta(seconds=30))
        await leases.open()
        stack.push_async_callback(leases.close)
        made = World(store, leases, client)
        await made.registry.register("orders", "shop:orders", {})
        await store.append("order-1", [NewEvent("Placed") for _ in range(6)])
        yield made


async def test_a_rewind_whose_owner_dies_before_it_was_saved_is_made_by_the_next_one(world: World) -> None:
    world.handling.gate.set()
    async with world.owner() as slot:
        await until(lambda: len(world.handling.seen) == 6, what="waiting for the first six")
        world.handling.gate.clear()
        world.handling.entered.clear()
        await world.store.append("order-1", [NewEvent("Placed")])
        await world.handling.entered.wait()
        await world.client.rewind("orders", 3, side_effects=False)
        await world.directory.obey([slot])
        assert (await world.command()).applied_at is None, "the handler is at work: nothing was rewound yet"
    assert (await world.command()).applied_at is None
    world.handling.gate.set()
    async with world.owner() as slot:
        await world.directory.obey([slot])
        await world.outcome("rewound to 3")
        # The seventh may have been settled before the rewind, or not.
        await until(lambda: world.handling.seen[-1] in ((7, True), (7, False)) and world.replayed[:3] == [4, 5, 6])


async def test_a_rewind_whose_owner_dies_after_it_was_saved_is_not_made_again(world: World) -> None:
    world.handling.gate.set()
    async with world.owner() as slot:
        await until(lambda: len(world.handling.seen) == 6, what="waiting for the first six")
        world.handling.gate.clear()
        await world.client.rewind("orders", 3)
        await world.directory.obey([slot])
        await world.outcome("rewound to 3")
    first = await world.command()
    del world.handling.seen[:]
    world.handling.gate.set()
    async with world.owner() as slot:
        await world.directory.obey([slot])
        await until(lambda: world.handling.seen[-1:] == [(6, True)], what="waiting for the replay")
        await world.store.append("order-1", [NewEvent("Placed")])
        await until(lambda: world.handling.seen[-1] == (7, False), what="waiting for the next event")
        await world.directory.obey([slot])
    assert [position for position, _ in world.handling.seen] == [4, 5, 6, 7]
    assert await world.command() == first


async def test_a_command_that_is_told_again_while_it_waits_is_obeyed_once(world: World) -> None:
    async with world.owner() as slot:
        await world.handling.entered.wait()
        await world.client.rewind("orders", 2)
        for _ in range(3):
            await world.directory.obey([slot])
        world.handling.gate.set()
        await world.outcome("rewound to 2")
        await world.directory.obey([slot])
        await until(lambda: world.handling.seen[-1][0] == 6, what="waiting for all of them")
    assert [position for position, _ in world.handling.seen] == [1, 3, 4, 5, 6]


async def test_an_owner_refuses_to_rewind_while_marks_of_earlier_partitions_still_count(world: World) -> None:
    await world.client.rewind("orders", 2)
    # As if a program had asked that does not look for marks: of two earlier partitions the other had settled up to 6.
    marks = [6, 6]
    marks[share_of("order-1", 0, 2)] = 4
    async with world.store.connection() as conn:
        await conn.execute('UPDATE "headwater"."subscriptions" SET "seam" = %s', [f"[[null, {marks}, [0, 0]]]"])
        await conn.execute('UPDATE "headwater"."partitions" SET "checkpoint" = 4, "seamed" = true')
    async with world.owner() as slot:
        await world.handling.entered.wait()
        await world.directory.obey([slot])
        assert ((await world.command()).outcome or "").startswith("refused: subscription 'orders': wait until")
        world.handling.gate.set()
        await world.client.wait_for("orders")
        await world.client.rewind("orders", 2)
        await world.directory.obey([slot])
        await world.outcome("rewound to 2")
        await until(lambda: world.replayed == [3, 4, 5, 6], what="waiting for the replay")
    assert world.handling.seen == [(5, False), (6, False), (3, True), (4, True), (5, True), (6, True)]


async def test_an_owner_that_was_replaced_neither_rewinds_nor_obeys(world: World) -> None:
    old, new = await world.grant(), await world.grant()
    await world.client.rewind("orders", 0)
    asked = await world.command()
    with pytest.raises(StaleEpoch):
        await world.checkpoints.rewind(old.rewound(), Progress(0), commands=[asked.command_id])
    assert (await world.command()).applied_at is None
    await world.checkpoints.rewind(new.rewound(), Progress(0), commands=[asked.command_id])
    obeyed = await world.command()
    await world.checkpoints.rewind(new.rewound().rewound(), Progress(0), commands=[asked.command_id])
    assert (obeyed.outcome, await world.command()) == ("rewound to 0", obeyed)


async def test_a_replay_whose_owner_dies_after_its_last_save_is_ended_by_the_next_one(world: World) -> None:
    world.handling.gate.set()
    async with world.owner():
        await until(lambda: len(world.handling.seen) == 6, what="waiting for the first six")
        await world.client.wait_for("orders")
    grant = await world.grant()
    (command_id,) = await world.client.replay("orders", 2, 5)
    await ReplayCheckpoints(world.store.pool, world.store.sql, command_id).save(grant, Progress(5))
    async with world.owner() as slot:
        await world.directory.obey([slot])
        await world.outcome("replayed 2 to 5")
    assert [position for position, _ in world.handling.seen] == list(range(1, 7))


async def test_what_a_handler_wants_parked_in_a_replay_is_passed_over_and_holds_up_no_key(world: World) -> None:
    world.handling.gate.set()
    async with world.owner() as slot:
        await until(lambda: len(world.handling.seen) == 6, what="waiting for the first six")
        await world.client.wait_for("orders")
        world.handling.parks_again = {2}
        await world.client.replay("orders", 1, 6)
        await world.directory.obey([slot])
        await world.outcome("replayed 1 to 6")
        await world.store.append("order-1", [NewEvent("Placed")])
        await until(lambda: (7, False) in world.handling.seen, what="waiting for the next of the key, live")
    assert world.replayed == [1, 2, 3, 4, 5, 6]
    [found] = await world.client.replays("orders")
    assert (found.failed, found.last_error) == (1, "position 2: Nack: not twice")
    assert await world.client.parked("orders") == []


async def test_what_a_replay_took_back_is_gone_on_with_there(world: World) -> None:
    world.handling.gate.set()
    async with world.owner():
        await until(lambda: len(world.handling.seen) == 6, what="waiting for the first six")
        await world.client.wait_for("orders")
    old, grant = await world.grant(), await world.grant()
    (command_id,) = await world.client.replay("orders", 1, 6)
    checkpoints = ReplayCheckpoints(world.store.pool, world.store.sql, command_id)
    await checkpoints.save(grant, Progress(5, 5))
    await checkpoints.save(grant, Progress(3, 3))
    assert (await world.client.replays("orders"))[0].checkpoint == 5
    with pytest.raises(StaleEpoch):
        await checkpoints.take_back(old, Progress(4, 4))
    await checkpoints.take_back(grant, Progress(4, 4))
    assert (await world.client.replays("orders"))[0].checkpoint == 4
