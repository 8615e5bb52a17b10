"""The test kit that users get: subscriptions in memory, and scenarios for one handler."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from headwater import ALL, CURRENT, App, Context, Delivery, NewEvent, OnFailure, RecordedEvent, RetryPolicy
from headwater.storage.errors import InvalidArgument, SqlRefused, SubscriptionNotFound, WaitTimedOut
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.testing.runtime import MemoryRuntime, NotCaughtUp
from headwater.subscriptions.testing.scenario import Scenario
from tests.plugins.waiting import until


class Totals:
    """A read model of a user."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self.stopped = False

    async def handle(self, event: RecordedEvent) -> None:
        if event.data is None:
            raise ValueError("no total")
        self.totals[event.stream] = self.totals.get(event.stream, 0) + event.data["total"]

    def stop(self) -> None:
        self.stopped = True


def placed(total: int | None) -> NewEvent:
    return NewEvent("OrderPlaced", None if total is None else {"total": total})


async def test_handlers_run_on_what_is_appended_until_they_are_caught_up() -> None:
    seen: list[str] = []

    async def handle(events: Sequence[RecordedEvent]) -> None:
        seen.extend(f"{event.stream}@{event.version}" for event in events)

    async with MemoryRuntime() as runtime:
        await runtime.run("all", handle, SubscriptionOptions(batch_size=10))
        await runtime.append("a", placed(1), placed(2))
        await runtime.append("b", placed(3))
        await runtime.caught_up()
        assert seen == ["a@1", "a@2", "b@1"]
        assert runtime.status("all").lag == 0 or runtime.status("all").watermark == 3


class Unready:
    """A handler that cannot start."""

    def start(self) -> None:
        raise RuntimeError("not ready")

    def handle(self, event: RecordedEvent) -> None: ...


async def test_a_handler_that_cannot_start_leaves_nothing_running() -> None:
    app = App("shop")
    app.register("ready", f"{__name__}:Totals", SubscriptionOptions())
    app.register("unready", f"{__name__}:Unready", SubscriptionOptions())
    before = asyncio.all_tasks()
    with pytest.raises(RuntimeError, match="not ready"):
        async with MemoryRuntime(app):
            pass
    assert asyncio.all_tasks() == before
    await until(lambda: not [each for each in threading.enumerate() if "Unready" in each.name])


@pytest.mark.parity("T311", "E20")
async def test_a_subscription_to_one_stream_gets_its_events_with_its_numbers_also_when_it_comes_later() -> None:
    numbers: list[tuple[int, int]] = []

    async def handle(event: RecordedEvent) -> None:
        numbers.append((event.number, event.position))

    async with MemoryRuntime() as runtime:
        await runtime.run("orders", handle, SubscriptionOptions(source="order-1"))
        await runtime.append("other", placed(1))
        await runtime.append("order-1", placed(1), placed(2))
        await runtime.caught_up("orders")
        assert numbers == [(1, 2), (2, 3)]


@pytest.mark.parity("L6")
async def test_a_stream_that_is_created_again_after_a_hard_delete_is_seen_from_its_beginning() -> None:
    seen: list[tuple[int, Any]] = []

    async def handle(event: RecordedEvent) -> None:
        seen.append((event.version, event.data["total"]))

    async with MemoryRuntime() as runtime:
        await runtime.run("orders", handle, SubscriptionOptions(source="order-1"))
        await runtime.append("order-1", placed(1), placed(2))
        await runtime.caught_up("orders")
        await runtime.store.delete_stream("order-1", hard=True)
        await runtime.append("order-1", placed(10))
        await until(lambda: len(seen) == 3)
        assert seen == [(1, 1), (2, 2), (1, 10)]


@pytest.mark.parity("T301")
async def test_a_subscription_to_a_stream_of_links_gets_them_with_their_numbers_there() -> None:
    seen: list[tuple[int, str, int]] = []

    async def handle(event: RecordedEvent) -> None:
        seen.append((event.number, event.stream, event.version))

    async with MemoryRuntime() as runtime:
        await runtime.run("links", handle, SubscriptionOptions(source="linked"))
        for stream in ("a", "b"):
            await runtime.append(stream, placed(1), placed(2))
            await runtime.store.link("linked", await runtime.store.read(stream))
        await runtime.caught_up("links")
        assert seen == [(1, "a", 1), (2, "a", 2), (3, "b", 1), (4, "b", 2)]


async def test_what_fails_is_parked_and_comes_again_when_it_is_asked_for() -> None:
    totals = Totals()
    async with MemoryRuntime() as runtime:
        await runtime.run("totals", totals, SubscriptionOptions(retry=RetryPolicy(attempts=2)))
        await runtime.append("a", placed(None), placed(5))
        await runtime.append("b", placed(7))
        await runtime.caught_up()
        assert totals.totals == {"b": 7}
        assert [(each.event.version, each.reason) for each in runtime.parked("totals")] == [
            (1, "failed"),
            (2, "behind"),
        ]


async def test_a_stopped_subscription_says_why_it_does_not_catch_up() -> None:
    async with MemoryRuntime() as runtime:
        retry = RetryPolicy(attempts=1, then=OnFailure.STOP)
        await runtime.run("totals", Totals(), SubscriptionOptions(retry=retry))
        await runtime.append("a", placed(None))
        with pytest.raises(NotCaughtUp, match="no total"):
            await runtime.caught_up()


@pytest.mark.parity("L36")
async def test_exactly_once_effects_and_the_checkpoint_are_committed_together() -> None:
    calls = 0

    async def handle(event: RecordedEvent, context: Context) -> None:
        nonlocal calls
        calls += 1
        await runtime.store.append("effects", [NewEvent("Done", {"of": event.position})], conn=context.transaction)
        if calls == 1:
            raise RuntimeError("after the write")

    async with MemoryRuntime() as runtime:
        options = SubscriptionOptions(delivery=Delivery.EXACTLY_ONCE, source="in")
        await runtime.run("effects", handle, options)
        await runtime.append("in", placed(1), placed(2))
        await runtime.caught_up("effects")
        assert [event.data["of"] for event in await runtime.store.read("effects")] == [1, 2]
        assert calls == 3


async def writes_to_a_table(event: RecordedEvent, context: Context) -> None:
    await context.transaction.execute("UPDATE totals SET n = n + 1")


async def test_a_handler_that_runs_sql_in_memory_is_told_so_at_once_and_nothing_is_parked() -> None:
    async with MemoryRuntime() as runtime:
        await runtime.run("totals", writes_to_a_table, SubscriptionOptions(delivery=Delivery.EXACTLY_ONCE))
        await runtime.append("a", placed(1))
        with pytest.raises(NotCaughtUp, match=r"totals is failed: .*has no 'execute', for it runs no SQL"):
            await runtime.caught_up()
        assert runtime.parked("totals") == []
    scenario = Scenario(writes_to_a_table, delivery=Delivery.EXACTLY_ONCE)
    outcome = await scenario.when(("a", placed(1)))
    assert isinstance(outcome.error, SqlRefused)
    assert outcome.error.attribute == "execute"
    await scenario.end()


async def test_an_exactly_once_handler_that_is_not_async_is_refused_before_it_runs() -> None:
    def handle(event: RecordedEvent) -> None: ...

    async with MemoryRuntime() as runtime:
        with pytest.raises(InvalidArgument, match="'totals': an exactly-once handler must be async"):
            await runtime.run("totals", handle, SubscriptionOptions(delivery=Delivery.EXACTLY_ONCE))


async def test_a_name_that_nothing_runs_under_is_refused_with_those_that_there_are() -> None:
    async with MemoryRuntime() as runtime:
        with pytest.raises(SubscriptionNotFound, match="no subscription named 'zz'; there are none"):
            runtime.status("zz")
        for name in ("totals", "alerts"):
            await runtime.run(name, Totals)
        with pytest.raises(InvalidArgument, match="'totals' runs already"):
            await runtime.run("totals", Totals)
        for ask in (runtime.status, runtime.runner, runtime.parked, runtime.retry_parked):
            with pytest.raises(SubscriptionNotFound, match=r"no subscription named 'zz'; there are 'alerts', 'totals'"):
                ask("zz")
        with pytest.raises(SubscriptionNotFound, match="zz") as refused:
            await runtime.caught_up("totals", "zz")
        assert (refused.value.subscription, refused.value.known) == ("zz", ("alerts", "totals"))


@pytest.mark.parity("T309", "T322", "E21")
@pytest.mark.parametrize(("start", "expected"), [(CURRENT, [3]), (1, [2, 3]), (0, [1, 2, 3])])
async def test_a_subscription_begins_where_it_is_told_to(start: Any, expected: list[int]) -> None:
    seen: list[int] = []

    async def handle(event: RecordedEvent) -> None:
        seen.append(event.position)

    async with MemoryRuntime() as runtime:
        await runtime.append("a", placed(1), placed(2))
        await runtime.run("new", handle, SubscriptionOptions(start=start, source=ALL))
        await runtime.append("a", placed(3))
        await runtime.caught_up()
        assert seen == expected


async def test_a_scenario_gives_a_handler_events_and_shows_what_it_made_of_them() -> None:
    scenario = Scenario(Totals)
    await scenario.given(("order-1", placed(10)), ("order-2", placed(1)))
    outcome = await scenario.when(("order-1", placed(5)))
    assert outcome.error is None
    assert scenario.handler.totals == {"order-1": 15, "order-2": 1}
    outcome = await scenario.when(("order-1", placed(None)))
    assert isinstance(outcome.error, ValueError)
    await scenario.end()
    assert scenario.handler.stopped


async def test_a_scenario_shows_a_handler_its_attempt_and_whether_it_replays() -> None:
    contexts: list[tuple[int, bool]] = []

    async def handle(events: list[RecordedEvent], context: Context) -> None:
        contexts.append((context.attempt, context.replaying))

    scenario = Scenario(handle, batch_size=5, handler_timeout=timedelta(seconds=1))
    await scenario.when(("a", placed(1)), attempt=3, replaying=True)
    assert contexts == [(3, True)]
    await scenario.end()


async def test_a_program_can_wait_for_its_own_write_on_the_store_in_memory() -> None:
    async with MemoryRuntime() as runtime:
        handled: list[int] = []
        await runtime.run("all", lambda event: handled.append(event.position))
        await runtime.run("one", lambda event: None, SubscriptionOptions(source="order-1"))
        await runtime.append("order-2", NewEvent("Placed"))
        position = await runtime.append("order-1", NewEvent("Placed"), NewEvent("Placed"))
        await runtime.store.wait_for("all", position)
        assert handled == [1, 2, 3]
        await runtime.store.wait_for("one", position)
        with pytest.raises(SubscriptionNotFound):
            await runtime.store.wait_for("missing", position)
        runtime.runner("all").pause("for a test")
        await runtime.append("order-1", NewEvent("Placed"))
        with pytest.raises(WaitTimedOut, match="for a test"):
            await runtime.store.wait_for("all", 4, 0.02)
