"""Whatever a handler raises, or does in place of an answer, is a failed attempt; its true reason is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from headwater import Delivery, NewEvent, OnFailure, RecordedEvent, RetryPolicy
from headwater.storage.memory.subscriptions import MemoryCheckpoints, MemoryCoordination, MemoryLeases
from headwater.subscriptions.core.phases import Phase
from headwater.subscriptions.core.sieve import Sieve
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.ports import Delivered
from headwater.subscriptions.pull import PullSubscription
from headwater.subscriptions.raised import Escaped, arrived, carried, described
from headwater.subscriptions.testing.builders import recorded
from headwater.subscriptions.testing.runtime import MemoryRuntime
from tests.plugins.waiting import until

from .outside import KEY, Calling, ListReader, Outside

TWICE = RetryPolicy(attempts=2)


class Wordless(Exception):
    """An error of a user whose own text is broken."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class Unpicklable(Exception):
    """An error that cannot be written down."""

    def __reduce__(self) -> Any:
        raise OSError("no way")


class Demanding(Exception):
    """An error that cannot be made anew from its words."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


def leaving() -> None:
    raise SystemExit(3)


async def cancel_a_task_and_await_it() -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    task.cancel()
    await task


async def cancel_oneself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.Event().wait()


def raising(error: BaseException) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


async def later() -> None: ...


SYNC = {
    "cancelled": (raising(asyncio.CancelledError()), "CancelledError"),
    "stop iteration": (raising(StopIteration("all")), "StopIteration: all"),
    "stop async iteration": (raising(StopAsyncIteration()), "StopAsyncIteration"),
    "exit": (leaving, "SystemExit: 3"),
    "interrupt": (raising(KeyboardInterrupt()), "KeyboardInterrupt"),
    "generator exit": (raising(GeneratorExit()), "GeneratorExit"),
    "wordless": (raising(Wordless()), "Wordless"),
    "unpicklable": (raising(Unpicklable("stuck")), "Unpicklable: stuck"),
    "demanding": (raising(Demanding(code=7)), "Demanding: code 7"),
    "base": (raising(BaseExceptionGroup("both", [SystemExit(1)])), "BaseExceptionGroup: both"),
    "a coroutine": (later, "returned a coroutine"),
    "a generator": (lambda: (each for each in range(3)), "returned a generator"),
}


def awaited(call: Callable[[], Any]) -> Callable[[], Any]:
    async def run() -> Any:
        return call()

    return run


ASYNC = {name: (awaited(call), reason) for name, (call, reason) in SYNC.items() if name != "interrupt"} | {
    "a cancelled task": (cancel_a_task_and_await_it, "CancelledError"),
    "itself cancelled": (cancel_oneself, "CancelledError"),
}


async def parked_by(handler: Any, delivery: Delivery, **options: Any) -> tuple[str, int]:
    """Let a handler have one event that it does not get through; returns the error and how often it had it."""
    async with MemoryRuntime() as runtime:
        await runtime.run("it", handler, replace(SubscriptionOptions(delivery=delivery, retry=TWICE), **options))
        await runtime.append("a", NewEvent("Placed", {}))
        await runtime.caught_up("it")
        [parked] = runtime.parked("it")
        assert parked.error is not None
        return parked.error, parked.attempts


@pytest.mark.parametrize("limit", [None, timedelta(minutes=1)], ids=["no limit", "a limit"])
@pytest.mark.parametrize("delivery", [Delivery.AT_LEAST_ONCE, Delivery.EXACTLY_ONCE])
@pytest.mark.parametrize("name", ASYNC)
async def test_whatever_an_async_handler_raises_is_a_failed_attempt(
    name: str, delivery: Delivery, limit: timedelta | None
) -> None:
    call, reason = ASYNC[name]
    calls = 0

    async def handler(event: RecordedEvent) -> Any:
        nonlocal calls
        calls += 1
        return await call()

    error, attempts = await parked_by(handler, delivery, handler_timeout=limit)
    assert reason in error or (name == "stop iteration" and "StopIteration" in error)
    assert attempts == calls == (1 if "returned" in reason else 2)


@pytest.mark.parametrize("delivery", [Delivery.AT_LEAST_ONCE, Delivery.AT_MOST_ONCE])
@pytest.mark.parametrize("name", SYNC)
async def test_whatever_a_sync_handler_raises_is_a_failed_attempt(name: str, delivery: Delivery) -> None:
    call, reason = SYNC[name]

    def handler(event: RecordedEvent) -> Any:
        return call()

    error, attempts = await parked_by(handler, delivery)
    assert reason in error
    assert attempts == (1 if "returned" in reason or delivery is Delivery.AT_MOST_ONCE else 2)


async def test_the_policy_of_an_error_class_counts_also_for_what_is_no_ordinary_error() -> None:
    policy = RetryPolicy(attempts=5, by_error=((SystemExit, RetryPolicy(attempts=3)),), never=(KeyboardInterrupt,))

    def leaves(event: RecordedEvent) -> None:
        raise SystemExit("enough")

    def interrupts(event: RecordedEvent) -> None:
        raise KeyboardInterrupt

    assert await parked_by(leaves, Delivery.AT_LEAST_ONCE, retry=policy) == ("SystemExit: enough", 3)
    assert (await parked_by(interrupts, Delivery.AT_LEAST_ONCE, retry=policy))[1] == 1


async def test_a_selector_that_ends_the_process_is_a_fault_of_its_event() -> None:
    outside, consumer = Outside(ListReader(2)), Calling()

    def selector(event: RecordedEvent) -> bool:
        if event.number == 1:
            raise SystemExit(2)
        return True

    runner = await outside.runner(consumer, sieve=Sieve(selector=selector), retry=RetryPolicy(then=OnFailure.SKIP))
    running = asyncio.create_task(runner.run())
    await until(lambda: consumer.numbers == [2])
    runner.stop()
    await running


@pytest.mark.parametrize("cancelled", [asyncio.CancelledError, SystemExit, GeneratorExit])
async def test_a_delivery_that_ends_without_an_answer_has_failed(cancelled: type[BaseException]) -> None:
    """Of a consumer that is not one of ours, or of ours with a defect."""
    tasks: list[asyncio.Task[Any]] = []

    async def handle(delivery: Delivered) -> None:
        if delivery.attempt == 1 and cancelled is not GeneratorExit:
            raise cancelled
        if delivery.attempt == 1:
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
            asyncio.get_running_loop().call_soon(task.cancel)
            await asyncio.Event().wait()

    outside = Outside(ListReader(2))
    consumer = Calling(handle)
    runner = await outside.runner(consumer, retry=RetryPolicy(attempts=2, first_delay=timedelta(milliseconds=1)))
    running = asyncio.create_task(runner.run())
    await until(lambda: runner.status.watermark == 2)
    assert consumer.numbers == [1, 1, 2, 2]
    runner.stop()
    await running


async def test_a_cancellation_that_is_the_owners_counts_as_nothing() -> None:
    entered = asyncio.Event()

    async def handle(delivery: Delivered) -> None:
        entered.set()
        await asyncio.Event().wait()

    outside = Outside(ListReader(1))
    runner = await outside.runner(Calling(handle), retry=RetryPolicy(attempts=1))
    running = asyncio.create_task(runner.run())
    await entered.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert outside.coordination.row(KEY).parked == {}
    assert runner.status.phase is Phase.RUNNING


def test_the_end_of_a_loop_is_no_failed_attempt() -> None:
    outside = Outside(ListReader(1))

    async def program() -> None:
        entered = asyncio.Event()

        async def handle(delivery: Delivered) -> None:
            entered.set()
            await asyncio.Event().wait()

        runner = await outside.runner(Calling(handle), retry=RetryPolicy(attempts=1))
        program.running = asyncio.create_task(runner.run())  # type: ignore[attr-defined]
        await entered.wait()

    asyncio.run(program())
    assert outside.coordination.row(KEY).parked == {}


@pytest.mark.parametrize(
    "error", [ValueError("v"), SystemExit(4), asyncio.CancelledError(), StopIteration(), Wordless()]
)
def test_an_error_travels_with_its_class(error: BaseException) -> None:
    found = arrived(carried(error))
    kept = found.original if isinstance(found, Escaped) else found
    assert type(kept) is type(error)


@pytest.mark.parametrize(
    ("error", "words"),
    [(Unpicklable("stuck"), "Unpicklable: stuck"), (Demanding(code=7), "Demanding: code 7")],
)
def test_an_error_that_cannot_travel_is_named_by_its_class_and_its_words(error: Exception, words: str) -> None:
    found = arrived(carried(error))
    assert isinstance(found, Escaped)
    assert str(found) == words
    assert str(arrived(carried(found))) == words


async def test_a_pulled_batch_can_be_refused_by_whatever_was_caught() -> None:
    coordination = MemoryCoordination()
    reader = ListReader([recorded(1, "a"), recorded(2, "b")])
    async with (
        PullSubscription(
            KEY,
            SubscriptionOptions(retry=RetryPolicy(attempts=1)),
            reader=reader,
            leases=MemoryLeases(coordination, "one"),
            checkpoints=MemoryCheckpoints(coordination),
        ) as subscription,
    ):
        caught: list[BaseException] = [asyncio.CancelledError("over"), Wordless()]
        async for batch in subscription:
            await batch.nack(caught.pop(0))
            if not caught:
                break
        parked = coordination.row(KEY).parked
        await until(lambda: len(parked) == 2)
        assert [parked[1].error, parked[2].error] == ["Nack: CancelledError: over", f"Nack: {described(Wordless())}"]
