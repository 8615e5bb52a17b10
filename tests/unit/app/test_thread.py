"""A thread for calls that may hang: what has begun is left behind, and what has not begun is not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from headwater.subscriptions.thread import Worker
from tests.plugins.waiting import until

NAME = "a thread of this test's own"


async def begin_and_give_up(worker: Worker, function: Callable[[], object]) -> None:
    begun = threading.Event()

    def call() -> object:
        begun.set()
        return function()

    hanging = asyncio.create_task(worker.run(call))
    await until(begun.is_set, what="waiting for the call to begin")
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging


def threads() -> int:
    return sum(thread.name == NAME for thread in threading.enumerate())


async def test_a_call_that_is_cancelled_before_its_turn_is_never_made() -> None:
    worker, begun, go_on, made = Worker(NAME), threading.Event(), threading.Event(), list[str]()

    def hang() -> None:
        begun.set()
        go_on.wait()
        made.append("first")

    hanging = asyncio.create_task(worker.run(hang))
    waiting = asyncio.create_task(worker.run(lambda: made.append("second")))
    await until(begun.is_set, what="waiting for the first call to begin")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await worker.run(lambda: made.append("third"))
    assert made == ["third"], "it waits for no call that hangs"
    go_on.set()
    await hanging
    worker.abandon()
    await until(lambda: threads() == 0, what="waiting for the threads to end")
    assert made == ["third", "first"]


@pytest.mark.parametrize("ends", [lambda: None, lambda: 1 / 0], ids=["returns", "raises"])
def test_a_call_left_behind_ends_quietly_after_the_loop_was_closed(
    ends: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints = list[threading.ExceptHookArgs]()
    monkeypatch.setattr(threading, "excepthook", complaints.append)
    go_on = threading.Event()
    asyncio.run(begin_and_give_up(Worker(NAME), lambda: go_on.wait() and ends()))
    (left_behind,) = (thread for thread in threading.enumerate() if thread.name == NAME)
    go_on.set()
    left_behind.join()
    assert complaints == []
