"""Pulling without ``await``: the same subscription, from plain threads."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from headwater import NewEvent, OnFailure, RetryPolicy, SubscriptionConflict, SubscriptionOptions, UnexpectedAck, sync
from headwater.cluster.options import ClusterOptions
from headwater.storage.errors import StoreClosed
from headwater.storage.options import StoreOptions
from headwater.sync import BlockingBatch, BlockingEventStore, BlockingPull
from tests.integration.pull.world import SOON
from tests.integration.subscriptions.following import LEASE
from tests.plugins.waiting import wait_until


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let an interrupt raise KeyboardInterrupt: whoever runs the tests may have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Blocking:
    """A store with five events, and programs that pull from it."""

    def __init__(self, url: str, store: BlockingEventStore) -> None:
        self.store = store
        self._cluster = ClusterOptions(store=StoreOptions(url=url), assignment_interval=SOON, lease=LEASE)

    def pulling(self, **options: Any) -> BlockingPull:
        defaults: dict[str, Any] = {"batch_size": 2, "poll_interval": SOON}
        return sync.pull("invoices", SubscriptionOptions(**(defaults | options)), cluster=self._cluster)


@pytest.fixture
def blocking(database_url: str) -> Iterator[Blocking]:
    with sync.connect(database_url) as store:
        store.append("order-1", [NewEvent("OrderPaid", {"total": n}) for n in range(1, 6)])
        yield Blocking(database_url, store)


def numbers(batch: BlockingBatch) -> list[int]:
    return [event.number for event in batch.events]


def test_a_loop_takes_and_acknowledges_and_the_next_program_goes_on(blocking: Blocking) -> None:
    with blocking.pulling() as subscription:
        for batch in subscription:
            assert [event.data["total"] for event in batch.events] == [1, 2]
            batch.ack(1)
            batch.ack_through(2)
            assert batch.over
            break
        for batch in subscription:
            assert numbers(batch) == [3, 4]
            batch.ack(3)
            break
        with pytest.raises(UnexpectedAck):
            batch.ack()
        assert repr(subscription) == "<BlockingPull invoices>"
    with pytest.raises(StoreClosed):
        batch.ack()
    with blocking.pulling() as subscription:
        assert numbers(next(iter(subscription))) == [4, 5]


def test_a_nack_comes_again_or_does_what_it_says(blocking: Blocking) -> None:
    retry = RetryPolicy(first_delay=timedelta(milliseconds=1))
    with blocking.pulling(batch_size=5, retry=retry) as subscription, subscription.subscriber("a") as mine:
        batch = mine.take()
        assert batch is not None
        batch.nack(ValueError("no paper"))
        again = mine.take()
        assert again is not None
        assert (numbers(again), again.attempt) == ([1, 2, 3, 4, 5], 2)
        again.nack("no use", OnFailure.SKIP)
        blocking.store.wait_for("invoices", 5, timeout=30)


def test_waiting_for_a_batch_may_have_a_limit(blocking: Blocking) -> None:
    with blocking.pulling(source="order-2") as subscription, subscription.subscriber("a") as mine:
        with pytest.raises(TimeoutError):
            mine.take(timeout=0.01)
        blocking.store.append("order-2", [NewEvent("OrderPaid")])
        batch = mine.take(timeout=30)
        assert batch is not None
        assert numbers(batch) == [1]


def test_threads_share_the_work_and_one_that_fails_leaves_its_part_to_the_others(blocking: Blocking) -> None:
    seen: list[int] = []
    failed = threading.Event()

    def work(subscription: BlockingPull, name: str) -> None:
        for batch in subscription.subscriber(name):
            seen.extend(numbers(batch))
            batch.ack()

    def fail(subscription: BlockingPull) -> None:
        try:
            for _ in subscription.subscriber("fails"):
                raise ValueError("no paper")
        except ValueError:
            failed.set()

    with blocking.pulling(consumers=3, partition_by="none", batch_size=1) as subscription:
        failing = threading.Thread(target=fail, args=(subscription,))
        failing.start()
        assert failed.wait(30)
        workers = [threading.Thread(target=work, args=(subscription, name)) for name in ("a", "b")]
        for worker in workers:
            worker.start()
        blocking.store.wait_for("invoices", 5, timeout=30)
        subscription.subscriber("fails")
    for thread in (failing, *workers):
        thread.join(30)
        assert not thread.is_alive(), "its loop ends with the subscription"
    assert sorted(seen) == [1, 2, 3, 4, 5]


def test_another_thread_may_close_it_while_this_one_waits(blocking: Blocking) -> None:
    with blocking.pulling() as subscription:
        batches = iter(subscription)
        for _ in range(3):
            next(batches).ack()
        closing = threading.Thread(target=subscription.close)
        closing.start()
        assert list(batches) == []
        closing.join(30)
        with pytest.raises(StoreClosed):
            subscription.subscriber("late")
    blocking.store.wait_for("invoices", 5, timeout=30)
    with blocking.pulling() as subscription:  # the lease is free
        blocking.store.append("order-1", [NewEvent("OrderPaid")])
        assert numbers(next(iter(subscription))) == [6]


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_loop_and_what_was_acknowledged_is_saved(blocking: Blocking) -> None:
    interrupter = threading.Thread(target=_interrupt_when_waiting)
    with pytest.raises(KeyboardInterrupt), blocking.pulling() as subscription:  # noqa: PT012
        for taken, batch in enumerate(subscription, start=1):
            batch.ack()
            if taken == 3:
                interrupter.start()
    interrupter.join(30)
    blocking.store.wait_for("invoices", 5, timeout=30)
    with blocking.pulling() as subscription:
        blocking.store.append("order-1", [NewEvent("OrderPaid")])
        assert numbers(next(iter(subscription))) == [6]


def _interrupt_when_waiting() -> None:
    main = threading.main_thread().ident
    assert main is not None
    wait_until(lambda: _waits_for_a_batch(main))
    signal.pthread_kill(main, signal.SIGINT)


def _waits_for_a_batch(thread: int) -> bool:
    """Whether a thread waits inside its loop: an interrupt anywhere else is another story."""
    inner = outer = sys._current_frames()[thread]
    while outer is not None and outer.f_code.co_name != "__iter__":
        outer = outer.f_back  # type: ignore[assignment]
    return outer is not None and outer.f_code.co_filename.endswith("blocking.py") and inner.f_code.co_name == "wait"


def test_a_name_that_is_taken_is_refused(blocking: Blocking) -> None:
    with blocking.pulling() as subscription:
        subscription.subscriber("a")
        with pytest.raises(SubscriptionConflict, match="'a' takes its batches already"):
            subscription.subscriber("a")
