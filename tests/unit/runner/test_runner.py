"""The shell does what the core asks for, and tells it what came of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest

from headwater.storage.errors import StoreUnavailable, UnexpectedAck
from headwater.storage.leases import Grant
from headwater.storage.memory.subscriptions import MemoryLeases
from headwater.subscriptions import runner as runner_module
from headwater.subscriptions.core.phases import Phase
from headwater.subscriptions.heads import Heads
from headwater.subscriptions.options import Delivery, OnFailure, RetryPolicy
from headwater.subscriptions.ports import ConsumerLost, Delivered, Nack, Unmendable
from headwater.subscriptions.testing.builders import recorded
from headwater.subscriptions.testing.clock import VirtualClock
from tests.plugins.waiting import until

from .outside import KEY, Calling, ListReader, Outside

FAST = RetryPolicy(attempts=2, first_delay=timedelta(milliseconds=1))


@pytest.mark.parity("T338")
async def test_everything_stored_is_handled_and_a_drain_saves_the_checkpoint() -> None:
    outside, consumer = Outside(ListReader(25)), Calling()
    runner = await outside.runner(consumer, batch_size=10)
    running = asyncio.create_task(runner.run())
    await until(lambda: len(consumer.numbers) == 25)
    runner.drain()
    status = await running
    assert consumer.numbers == list(range(1, 26))
    assert (status.phase, status.checkpoint, status.lag) == (Phase.FINISHED, 25, 0)
    assert outside.checkpoint == 25
    assert outside.observer.phases == ["running", "draining", "finished"]
    assert outside.coordination.row(KEY).phase == "finished"


async def test_a_hint_brings_new_events_long_before_the_poll() -> None:
    outside, consumer = Outside(ListReader(1)), Calling()
    heads = Heads(outside.reader)
    runner = await outside.runner(consumer, heads=heads, poll_interval=timedelta(hours=1))
    running = asyncio.create_task(runner.run())
    await until(lambda: consumer.numbers == [1])
    heads.announce(outside.reader.append(2))
    await until(lambda: consumer.numbers == [1, 2, 3])
    runner.stop()
    await running


@pytest.mark.parity("L5")
async def test_without_hints_polling_brings_new_events() -> None:
    outside, consumer = Outside(ListReader(1)), Calling()
    runner = await outside.runner(consumer, poll_interval=timedelta(milliseconds=10))
    running = asyncio.create_task(runner.run())
    await until(lambda: consumer.numbers == [1])
    outside.reader.append(2)
    await until(lambda: consumer.numbers == [1, 2, 3])
    runner.stop()
    await running


@pytest.mark.parity("T347", "L2")
async def test_when_the_session_ends_delivery_stops_and_run_returns() -> None:
    outside = Outside(ListReader(5))
    hanging = Calling(lambda delivery: asyncio.Event().wait())  # type: ignore[arg-type, return-value]
    runner = await outside.runner(hanging)
    running = asyncio.create_task(runner.run())
    await until(lambda: hanging.deliveries)
    outside.leases.end_session()
    status = await running
    assert status.phase is Phase.FINISHED
    assert "session" in (status.reason or "")
    assert len(hanging.deliveries) == 1


async def test_an_owner_that_is_told_of_the_end_of_its_session_does_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.subscriptions.runner.LOSS_CHECK", 3600)
    outside, consumer = Outside(ListReader(1)), Calling()
    runner = await outside.runner(consumer)
    running = asyncio.create_task(runner.run())
    await until(lambda: consumer.deliveries)
    outside.leases.end_session()
    status = await running
    assert status.phase is Phase.FINISHED
    assert "session" in (status.reason or "")


async def test_a_stale_epoch_ends_the_run_and_writes_nothing() -> None:
    outside, consumer = Outside(ListReader(5)), Calling()
    runner = await outside.runner(consumer, batch_size=5)
    # Another owner is granted the lease while this one has not noticed yet.
    outside.coordination.release_session(runner.grant.session)
    await MemoryLeases(outside.coordination, "other").claim([KEY])
    status = await runner.run()
    assert status.phase is Phase.FINISHED
    assert consumer.deliveries == []
    assert outside.checkpoint == 0


async def test_nothing_is_delivered_while_the_lease_is_not_renewed() -> None:
    outside, consumer, clock = Outside(ListReader(1)), Calling(), VirtualClock(100)
    outside.leases.valid_until = 99.0
    runner = await outside.runner(consumer, clock=clock)
    running = asyncio.create_task(runner.run())
    await until(lambda: runner.status.in_flight == 1)
    assert consumer.deliveries == []
    outside.leases.valid_until = 200.0
    await until(lambda: consumer.deliveries)
    runner.stop()
    await running


@pytest.mark.parity("L7")
async def test_nothing_is_delivered_when_the_lease_may_have_passed_on_while_a_consumer_was_replaced() -> None:
    class Replaced(Calling):
        async def ready(self) -> None:
            outside.leases.valid_until = 99.0
            replaced.set()

    outside, consumer, clock, replaced = Outside(ListReader(1)), Replaced(), VirtualClock(100), asyncio.Event()
    runner = await outside.runner(consumer, clock=clock, handler_timeout=timedelta(hours=1))
    running = asyncio.create_task(runner.run())
    await replaced.wait()
    outside.leases.end_session()
    await running
    assert consumer.deliveries == []


async def test_an_outage_of_the_store_is_survived_and_seen() -> None:
    outside, consumer = Outside(ListReader(1)), Calling()
    outside.reader.broken = True
    runner = await outside.runner(consumer)
    running = asyncio.create_task(runner.run())
    await until(lambda: runner.status.phase is Phase.STUCK)
    assert "away" in (runner.status.reason or "")
    outside.reader.broken = False
    await until(lambda: consumer.numbers == [1])
    assert runner.status.phase is Phase.RUNNING
    runner.stop()
    await running


async def test_an_outage_at_the_beginning_is_waited_for_and_is_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "OUTAGE_PAUSE", 0.001)
    outside, consumer = Outside(ListReader(1)), Calling()
    refusals = 3

    async def refused(grant: Grant) -> set[str]:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise StoreUnavailable("the database is away")
        return set()

    monkeypatch.setattr(outside.checkpoints, "parked_keys", refused)
    runner = await outside.runner(consumer)
    running = asyncio.create_task(runner.run())
    await until(lambda: consumer.numbers == [1])
    assert refusals == 0
    runner.stop()
    await running


async def test_an_outage_at_the_beginning_that_costs_the_lease_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "OUTAGE_PAUSE", 0.001)
    outside, consumer = Outside(ListReader(1)), Calling()

    async def refused(grant: Grant) -> set[str]:
        outside.leases.end_session()
        raise StoreUnavailable("the database is away")

    monkeypatch.setattr(outside.checkpoints, "parked_keys", refused)
    runner = await outside.runner(consumer)
    assert (await runner.run()).phase is Phase.FINISHED
    assert consumer.deliveries == []


@pytest.mark.parity("L29")
@pytest.mark.parametrize(
    ("error", "calls"), [(ValueError("x"), 2), (Unmendable("x"), 1), (KeyError("x"), 1), (ConsumerLost("x"), 2)]
)
async def test_a_failing_event_is_parked_after_its_attempts(error: Exception, calls: int) -> None:
    async def fail(_: Delivered) -> None:
        raise error

    outside, consumer = Outside(ListReader(1)), Calling(fail)
    retry = RetryPolicy(attempts=2, first_delay=timedelta(milliseconds=1), never=(KeyError,))
    runner = await outside.runner(consumer, retry=retry)
    running = asyncio.create_task(runner.run())
    parked = outside.coordination.row(KEY).parked
    await until(lambda: parked)
    assert len(consumer.deliveries) == calls
    assert type(error).__name__ in (parked[1].error or "")
    runner.drain()
    await running
    assert outside.checkpoint == 1


async def test_an_outage_inside_an_exactly_once_delivery_uses_up_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "OUTAGE_PAUSE", 0.001)
    outside, refusals = Outside(ListReader(1)), 10

    async def refuse(delivery: Delivered) -> None:
        if len(consumer.deliveries) <= refusals:
            raise StoreUnavailable("no space left on device", "53100")

    consumer = Calling(refuse)
    runner = await outside.runner(consumer, retry=FAST, delivery=Delivery.EXACTLY_ONCE)
    running = asyncio.create_task(runner.run())
    await until(lambda: len(consumer.deliveries) > refusals)
    runner.drain()
    await running
    assert [delivery.attempt for delivery in consumer.deliveries] == [1] * (refusals + 1)
    assert not outside.coordination.row(KEY).parked


async def test_a_commit_that_was_refused_is_tried_again_unless_the_progress_says_that_it_was_made_before() -> None:
    async def handle(delivery: Delivered) -> None:
        if delivery.attempt == 1:
            raise UnexpectedAck("tested", 1)  # the saved progress has changed since the transaction began

    consumer = Calling(handle)
    outside = Outside(ListReader(1))
    runner = await outside.runner(consumer, retry=FAST, delivery=Delivery.EXACTLY_ONCE)
    running = asyncio.create_task(runner.run())
    await until(lambda: len(consumer.deliveries) == 2)
    assert outside.coordination.row(KEY).parked == {}
    runner.stop()
    await running


async def test_a_handler_may_say_itself_what_becomes_of_its_events() -> None:
    async def refuse(_: Delivered) -> None:
        raise Nack("not for me", OnFailure.SKIP)

    outside, consumer = Outside(ListReader(2)), Calling(refuse)
    runner = await outside.runner(consumer)
    running = asyncio.create_task(runner.run())
    await until(lambda: runner.status.watermark == 2)
    assert len(consumer.deliveries) == 2
    runner.stop()
    await running


@pytest.mark.parity("L37")
async def test_a_handler_that_hangs_counts_as_failed_after_its_time() -> None:
    calls = 0

    async def hang_once(_: Delivered) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.Event().wait()

    outside, consumer = Outside(ListReader(2)), Calling(hang_once)
    runner = await outside.runner(consumer, handler_timeout=timedelta(milliseconds=20), retry=FAST)
    running = asyncio.create_task(runner.run())
    await until(lambda: runner.status.watermark == 2)
    assert consumer.numbers == [1, 1, 2]
    runner.stop()
    await running


async def test_nothing_is_under_way_after_a_run_that_was_cancelled_whatever_its_handler_did_about_it() -> None:
    async def keep_on(_: Delivered) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    outside, stubborn = Outside(ListReader(5)), Calling(keep_on)
    runner = await outside.runner(stubborn)
    before = asyncio.all_tasks()
    running = asyncio.create_task(runner.run())
    await until(lambda: stubborn.deliveries)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == before
    assert stubborn.numbers == [1], "what was handled after the end counts for the next owner only"


@pytest.mark.parity("L31")
async def test_what_operators_ask_for_before_the_run_holds() -> None:
    outside, consumer = Outside(ListReader(3)), Calling()
    runner = await outside.runner(consumer)
    runner.pause("not yet")
    running = asyncio.create_task(runner.run())
    await until(lambda: runner.status.phase is Phase.PAUSED)
    assert runner.status.reason == "not yet"
    runner.resume()
    await until(lambda: 3 in consumer.numbers)
    runner.rewind(1)
    await until(lambda: consumer.numbers.count(3) == 2)
    assert consumer.numbers.count(1) == 1
    runner.stop()
    await running


async def test_a_defect_of_an_observer_is_raised_and_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    outside = Outside(ListReader(1))
    runner = await outside.runner(Calling())

    def fail(*_: object) -> None:
        raise RuntimeError("observer")

    monkeypatch.setattr(outside.observer, "delivered", fail)
    with pytest.raises(RuntimeError, match="observer"):
        await runner.run()


async def test_a_delivery_that_waits_for_its_consumer_says_so_and_is_no_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Gone(Calling):
        def __init__(self) -> None:
            super().__init__()
            self.here = asyncio.Event()

        async def ready(self) -> None:
            await self.here.wait()

    monkeypatch.setattr("headwater.subscriptions.runner.READY_SOON", 0.01)
    consumer = Gone()
    outside = Outside(ListReader(1))
    once = RetryPolicy(attempts=1)
    runner = await outside.runner(consumer, handler_timeout=timedelta(milliseconds=20), retry=once)
    running = asyncio.create_task(runner.run())
    row = outside.coordination.row(KEY)
    await until(lambda: row.phase == "stuck", what="waiting for operators to be told")
    assert "consumer 0 has ended" in (row.reason or "")
    assert consumer.deliveries == []
    consumer.here.set()
    await until(lambda: row.phase == "running" and outside.checkpoint == 1)
    assert [delivery.attempt for delivery in consumer.deliveries] == [1]
    assert row.parked == {}
    runner.stop()
    await running


async def test_the_time_to_replace_a_consumer_is_not_the_handlers() -> None:
    class Slow(Calling):
        made = 0

        async def ready(self) -> None:
            self.made += 1
            await asyncio.sleep(0.02)

    consumer = Slow()
    outside = Outside(ListReader(1))
    runner = await outside.runner(consumer, handler_timeout=timedelta(milliseconds=1), retry=RetryPolicy(attempts=1))
    running = asyncio.create_task(runner.run())
    await until(lambda: runner.status.watermark == 1)
    runner.drain()
    await running
    assert (consumer.numbers, consumer.made) == ([1], 1)
    assert not outside.coordination.row(KEY).parked


async def test_each_class_of_error_has_its_own_policy() -> None:
    async def fail(delivery: Delivered) -> None:
        raise {1: ConnectionResetError, 2: KeyError, 3: ValueError}[delivery.events[0].number]("broke")

    at_once = timedelta(0)
    policy = RetryPolicy(
        attempts=1,
        by_error=(
            (ConnectionError, RetryPolicy(attempts=4, first_delay=at_once)),
            (LookupError, RetryPolicy(attempts=2, first_delay=at_once, then=OnFailure.SKIP)),
        ),
    )
    consumer = Calling(fail)
    outside = Outside(ListReader([recorded(n, f"stream-{n}") for n in (1, 2, 3)]))
    runner = await outside.runner(consumer, retry=policy)
    running = asyncio.create_task(runner.run())
    await until(lambda: runner.status.watermark == 3)
    runner.drain()
    await running
    assert consumer.numbers == [1, 1, 1, 1, 2, 2, 3]
    parked = outside.coordination.row(KEY).parked
    assert {position: each.attempts for position, each in parked.items()} == {1: 4, 3: 1}, "2 was skipped"
