"""What an owner has given up, and the server hears only after what the owner sent since, changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest

from headwater.storage.options import StoreOptions
from headwater.storage.postgres.checkpoints import PostgresCheckpoints
from headwater.storage.postgres.commands import Commands
from headwater.storage.postgres.leases import LeaseSession
from headwater.storage.postgres.registry import Registry
from headwater.storage.postgres.store import PostgresEventStore
from headwater.subscriptions.core.phases import Phase
from headwater.subscriptions.options import RetryPolicy, SubscriptionOptions
from headwater.subscriptions.ports import Delivered
from headwater.subscriptions.runner import SubscriptionRunner
from tests.integration.subscriptions.following import LEASE
from tests.plugins.events import events
from tests.plugins.proxy import Proxy, proxy_before
from tests.plugins.waiting import until

SAVE: Final = b'"delivered" = "delivered" + '
REWIND: Final = b'"replay_side_effects" = '
PARK: Final = b'INSERT INTO "headwater"."parked_events"'
BEGIN: Final = b'"begun" = "e"."begun" + 1'
RETRIED: Final = b'"attempts" = "e"."attempts"'
REPORT: Final = b'"since" = CASE WHEN "phase"'
SOON: Final = timedelta(milliseconds=20)
OPTIONS: Final = SubscriptionOptions(
    poll_interval=SOON, checkpoint_interval=SOON, retry=RetryPolicy(attempts=1), batch_size=1, partition_by="none"
)
PATIENT: Final = replace(OPTIONS, retry=RetryPolicy(attempts=10_000, first_delay=SOON, max_delay=SOON))
TWICE: Final = replace(OPTIONS, retry=RetryPolicy(attempts=2, first_delay=SOON, max_delay=SOON))


class Handling:
    """A handler that notes what it got; it holds on to it while the gate is shut, and fails with what is broken."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.broken: set[int] = set()
        self.holds = 0
        """How many events wait at the gate."""

    async def handle(self, delivery: Delivered) -> None:
        (event,) = delivery.events
        self.seen.append(event.number)
        self.holds += 1
        await self.gate.wait()
        self.holds -= 1
        if event.number in self.broken:
            raise ValueError("it is broken")

    async def close(self) -> None: ...


class Owner:
    """A running subscription: its progress goes to the server through a proxy, all else does not."""

    def __init__(self, store: PostgresEventStore, proxy: Proxy, runner: SubscriptionRunner, handling: Handling) -> None:
        self.store = store
        self.proxy = proxy
        self.runner = runner
        self.handling = handling
        self.commands = Commands(store.pool, store.sql)
        self._registry = Registry(store.pool, store.sql, store)

    async def checkpoint(self) -> int:
        [state] = await self._registry.states("orders")
        return state.checkpoint

    async def attempt(self) -> int:
        """Return how often the handler was begun on what follows the checkpoint, as the next owner would find it."""
        async with self.store.pool.connection() as conn:
            row = await (await conn.execute(b'SELECT "attempt" FROM "headwater"."partitions"')).fetchone()
        assert row is not None
        return int(row[0])

    async def parked(self) -> list[tuple[int, str, int]]:
        """Return the position of each parked event, how it stands, and how often it was handed out."""
        return [(each.position, each.status, each.attempts) for each in await self.commands.parked("orders")]

    async def has_parked(self, *parked: tuple[int, str, int]) -> None:
        async def those() -> bool:
            return await self.parked() == list(parked)

        await until(those, what=f"waiting for {parked} to be parked: {self.runner.status}")

    async def ask_again(self) -> None:
        """Let what is parked be handled again, as an operator may ask for."""
        assert await self.commands.retry_parked("orders", issued_by="a test")
        self.runner.retry_parked()

    async def holds_an_event(self) -> None:
        """Wait until the handler waits at the gate that is shut."""
        await until(lambda: self.handling.holds == 1, what=f"waiting for the handler to hold one: {self.runner.status}")

    async def phase(self) -> str:
        """Return what operators are told that it does."""
        [state] = await self._registry.states("orders")
        return state.phase

    async def has_reported(self, phase: str) -> None:
        async def reported() -> bool:
            return await self.phase() == phase

        await until(reported, what=f"waiting for the phase {phase}: {self.runner.status}")

    async def has_saved(self, number: int) -> None:
        async def saved() -> bool:
            return await self.checkpoint() == number

        await until(saved, what=f"waiting for the checkpoint {number}: {self.runner.status}")

    async def keeps_back(self) -> None:
        """Wait until the request that is to be late is on its way."""
        await until(lambda: self.proxy.keeps == 1, what="waiting for what is to be kept back")

    async def has_seen(self, *numbers: int) -> None:
        """Wait until the handler was given just these, one after the other."""
        await until(lambda: self.handling.seen == list(numbers), what=f"{self.handling.seen} {self.runner.status}")


@asynccontextmanager
async def running(database_url: str, options: SubscriptionOptions) -> AsyncIterator[Owner]:
    """Run a subscription: four events are handled, and that is saved."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(await PostgresEventStore.open(database_url))
        proxy, url = await stack.enter_async_context(proxy_before(database_url))
        # As behind a pooler: statements go as they are and not under a name, so that the proxy knows them.
        pooled = StoreOptions(url=url, session_url=database_url)
        behind = await stack.enter_async_context(await PostgresEventStore.open(options=pooled))
        leases = LeaseSession(StoreOptions(url=database_url), host="host", lease=LEASE)
        await leases.open()
        stack.push_async_callback(leases.close)
        registry = Registry(store.pool, store.sql, store)
        await registry.register("orders", "package.module:handler", {})
        (grant,) = await leases.claim([state.key for state in await registry.states("orders")])
        handling = Handling()
        runner = SubscriptionRunner(
            options,
            grant,
            reader=store,
            leases=leases,
            checkpoints=PostgresCheckpoints(behind.pool, behind.sql),
            consumers=[handling],
            parking=Commands(behind.pool, behind.sql),
        )
        task = asyncio.create_task(runner.run())
        owner = Owner(store, proxy, runner, handling)
        await store.append("order-1", events(4))
        await owner.has_saved(4)
        yield owner
        runner.stop("the test is over")
        await task


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Owner]:
    async with running(database_url, OPTIONS) as owner:
        yield owner


async def test_a_save_that_is_late_does_not_pass_what_was_rewound(owner: Owner) -> None:
    owner.proxy.late = SAVE
    await owner.store.append("order-1", events(3))
    await owner.keeps_back()
    await owner.has_seen(1, 2, 3, 4, 5, 6, 7)
    owner.handling.gate.clear()
    owner.runner.rewind(2)
    await owner.has_seen(1, 2, 3, 4, 5, 6, 7, 3)
    await owner.proxy.let_go()
    assert await owner.checkpoint() == 2
    owner.handling.gate.set()
    await owner.has_saved(7)
    await owner.has_seen(1, 2, 3, 4, 5, 6, 7, 3, 4, 5, 6, 7)


async def test_a_rewind_that_is_late_is_not_made_a_second_time(owner: Owner) -> None:
    owner.proxy.late = REWIND
    owner.runner.rewind(2)
    await owner.keeps_back()
    await owner.has_seen(1, 2, 3, 4, 3, 4)
    await owner.has_saved(4)
    owner.runner.stop("so that no save of its own hides what the late write does")
    await until(lambda: owner.runner.status.phase is Phase.FINISHED)
    await owner.proxy.let_go()
    assert await owner.checkpoint() == 4


async def test_what_was_parked_and_is_handled_since_a_rewind_is_not_parked_by_a_late_write(owner: Owner) -> None:
    owner.proxy.late = PARK
    owner.handling.broken = {5}
    await owner.store.append("order-1", events(1))
    await owner.keeps_back()
    await owner.has_saved(5)
    assert [each.position for each in await owner.commands.parked("orders")] == [5], "it was parked once more"
    owner.handling.broken.clear()
    owner.runner.rewind(4)
    await owner.has_seen(1, 2, 3, 4, 5, 5)
    await owner.has_saved(5)
    await owner.proxy.let_go()
    assert await owner.commands.parked("orders") == []


async def test_a_save_that_is_late_does_not_set_the_count_of_attempts_back(database_url: str) -> None:
    async with running(database_url, PATIENT) as owner:
        owner.handling.broken = {5}
        await owner.store.append("order-1", events(1))
        await until(lambda: owner.handling.seen.count(5) >= 2)
        owner.proxy.late = SAVE
        await owner.keeps_back()
        before = owner.handling.seen.count(5)
        await until(lambda: owner.handling.seen.count(5) >= before + 2, what="waiting for more attempts")
        owner.handling.gate.clear()
        await owner.holds_an_event()
        made = owner.handling.seen.count(5)
        assert await owner.attempt() == made
        await owner.proxy.let_go()
        assert await owner.attempt() == made
        owner.handling.broken.clear()
        owner.handling.gate.set()
        await owner.has_saved(5)


async def test_what_was_parked_and_is_settled_since_is_not_parked_by_a_late_write(owner: Owner) -> None:
    owner.proxy.late = PARK
    owner.handling.broken = {5}
    await owner.store.append("order-1", events(1))
    await owner.keeps_back()
    await owner.has_saved(5)
    await owner.has_parked((5, "parked", 1))
    owner.handling.broken.clear()
    await owner.ask_again()
    await owner.has_parked()
    await owner.proxy.let_go()
    assert await owner.parked() == []
    await owner.has_seen(1, 2, 3, 4, 5, 5)


async def test_an_attempt_at_a_parked_event_is_not_counted_once_more_by_a_late_write(owner: Owner) -> None:
    owner.handling.broken = {5}
    await owner.store.append("order-1", events(1))
    await owner.has_parked((5, "parked", 1))
    owner.proxy.late = BEGIN
    await owner.ask_again()
    await owner.keeps_back()
    await owner.has_parked((5, "parked", 2))
    owner.handling.gate.clear()
    await owner.ask_again()
    await owner.holds_an_event()
    await owner.proxy.let_go()
    assert await owner.parked() == [(5, "retrying", 3)]
    owner.handling.gate.set()
    await owner.has_parked((5, "parked", 3))


async def test_what_an_operator_asks_for_is_not_taken_back_by_a_late_write(database_url: str) -> None:
    async with running(database_url, TWICE) as owner:
        owner.handling.broken = {5}
        await owner.store.append("order-1", events(1))
        await owner.has_parked((5, "parked", 2))
        owner.proxy.late = RETRIED
        await owner.ask_again()
        await owner.keeps_back()
        await owner.has_parked((5, "parked", 4))
        owner.runner.pause("so that it is not handled yet")
        await owner.has_reported("paused")
        await owner.ask_again()
        await owner.proxy.let_go()
        assert await owner.parked() == [(5, "retrying", 4)]
        owner.handling.broken.clear()
        owner.runner.resume()
        await owner.has_parked()


async def test_a_report_that_is_late_does_not_hide_what_was_said_since(owner: Owner) -> None:
    owner.proxy.late = REPORT
    owner.runner.pause("for a moment")
    await owner.keeps_back()
    await owner.has_reported("paused")
    owner.runner.resume()
    await owner.has_reported("running")
    await owner.proxy.let_go()
    assert await owner.phase() == "running"


async def test_a_report_that_fails_is_made_again_until_it_is_stored(owner: Owner) -> None:
    owner.proxy.late = REPORT
    owner.runner.pause("for good")
    await owner.keeps_back()
    await owner.has_reported("paused")
