"""A partition's place on a host: let go at any moment, and told what operators ask in the order in which they did."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from headwater import SubscriptionOptions
from headwater.cluster.directory import HostDirectory
from headwater.cluster.replays import SlotReplays
from headwater.cluster.slot import Slot
from headwater.storage.leases import Grant, Progress
from headwater.storage.memory.subscriptions import MemoryCheckpoints, MemoryLeases
from headwater.storage.postgres.replaying import ReplayRange
from headwater.storage.registry import CommandRecord
from headwater.subscriptions.ports import Consumer
from headwater.subscriptions.runner import SubscriptionRunner
from tests.plugins.waiting import DEADLINE, until

from .test_host import KEY, World


class Place:
    """A slot, what it runs on, and the lease."""

    def __init__(self) -> None:
        self.world = World()
        self.world.gate.set()
        self.world.assign("a")
        self.leases = MemoryLeases(self.world.rows, "a")
        self.checkpoints = MemoryCheckpoints(self.world.rows)
        self.slot = Slot("a", self.world.assigned[KEY], self.world.make_consumers, self.make_runner)

    def make_runner(
        self, options: SubscriptionOptions, grant: Grant, consumers: Sequence[Consumer]
    ) -> SubscriptionRunner:
        return SubscriptionRunner(
            options,
            grant,
            reader=self.world.log,
            leases=self.leases,
            checkpoints=self.checkpoints,
            consumers=consumers,
        )

    async def grant(self) -> Grant:
        (grant,) = await self.leases.claim([KEY])
        return grant


async def test_a_slot_that_is_let_go_between_the_grant_and_its_first_step_runs_nothing() -> None:
    place = Place()
    await place.slot.prepare()
    grant = await place.grant()
    place.slot.drain()
    async with asyncio.timeout(DEADLINE):
        await place.slot.run(grant, place.checkpoints)
    assert place.world.seen == []


async def test_a_slot_whose_handler_cannot_be_loaded_is_let_go_also_while_it_says_so() -> None:
    class Asking(MemoryCheckpoints):
        async def report(self, grant: Grant, phase: str, reason: str | None) -> None:
            await super().report(grant, phase, reason)
            place.slot.drain()

    place = Place()
    async with asyncio.timeout(DEADLINE):
        await place.slot.run(await place.grant(), Asking(place.world.rows))


class Asked:
    """What an operator has asked for, until it is obeyed."""

    def __init__(self, verb: str) -> None:
        self.obeyed: list[str] = []
        self._command = CommandRecord(
            7, KEY.subscription, 0, KEY.lock_id, verb, {}, "ada", datetime.now(UTC), None, None
        )

    async def open(self, lock_ids: Sequence[int]) -> list[CommandRecord]:
        return [] if self.obeyed else [self._command]

    async def finish(self, grant: Grant, command_id: int, outcome: str) -> None:
        self.obeyed.append(outcome)


async def test_a_resume_that_is_obeyed_late_does_not_undo_a_pause_that_came_after_it() -> None:
    place, nothing = Place(), object()
    await place.slot.prepare()
    running = asyncio.create_task(place.slot.run(await place.grant(), place.checkpoints))
    await until(lambda: len(place.world.seen) == 10)
    place.world.assign("a", paused=True)
    place.slot.update(place.world.assigned[KEY])
    asked = Asked("resume")
    directory = HostDirectory(nothing, asked, nothing, nothing)  # type: ignore[arg-type]
    await directory.obey([place.slot])
    assert len(asked.obeyed) == 1
    assert place.slot.runner is not None
    assert place.slot.runner.status.phase.value == "paused"
    place.world.assign("a")
    place.slot.update(place.world.assigned[KEY])
    assert place.slot.runner.status.phase.value == "running"
    place.slot.stop()
    await running
    await place.slot.close()


class Stopped:
    """A replay that stops at once, and notes that it was begun."""

    def __init__(self, begun: list[int]) -> None:
        self._begun = begun

    async def run(self) -> str | None:
        self._begun.append(1)
        return "stopped after 3: it failed"

    def drain(self) -> None: ...

    def stop(self) -> None: ...


async def test_a_replay_that_has_ended_is_not_begun_again_by_a_look_that_was_under_way() -> None:
    ended = asyncio.Event()

    async def finish(grant: Grant, command_id: int, outcome: str) -> None:
        ended.set()

    begun: list[int] = []
    replays, grant = SlotReplays(), await Place().grant()
    found = ReplayRange(0, 9, True, Progress(0), None)

    def make(*_: Any) -> Stopped:
        return Stopped(begun)

    replays.look(7, found, grant, make, finish)
    await ended.wait()
    await replays.end()
    replays.look(7, found, grant, make, finish)
    await replays.end()
    assert begun == [1]
