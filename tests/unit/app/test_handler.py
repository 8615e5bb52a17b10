"""Handlers of any shape, run by a consumer in this process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from headwater import ConfigurationError, Context, RecordedEvent, SubscriptionOptions
from headwater.storage.leases import Grant, PartitionKey, Progress, Retried
from headwater.subscriptions.consumers import LocalConsumer
from headwater.subscriptions.handler import Handler
from headwater.subscriptions.ports import Delivered


def event(position: int) -> RecordedEvent:
    return RecordedEvent(
        *(position, "order-1", position, position, uuid.uuid4(), "Placed", b"{}", None, None, None),
        *(datetime(2026, 1, 1, tzinfo=UTC), None, 1),
    )


GRANT = Grant(PartitionKey("totals", 3, 17), epoch=5, owner="host", session=1, progress=Progress(0))


def delivery(*events: RecordedEvent, commit: Progress | None = None) -> Delivered:
    return Delivered(1, events, 2, GRANT, commit)


class Ledger:
    """Transactions that only remember how they ended."""

    def __init__(self) -> None:
        self.committed: list[Progress | Retried] = []

    @contextlib.asynccontextmanager
    async def open(self, grant: Grant, progress: Progress | Retried) -> AsyncIterator[str]:
        yield "async"
        self.committed.append(progress)

    @contextlib.contextmanager
    def open_sync(self, grant: Grant, progress: Progress | Retried) -> Iterator[str]:
        yield "sync"
        self.committed.append(progress)


async def handled(target: Any, delivered: Delivered, ledger: Ledger | None = None, **options: Any) -> None:
    consumer = LocalConsumer(Handler(target, SubscriptionOptions(**options)), ledger or Ledger(), index=4)
    await consumer.start()
    try:
        await consumer.handle(delivered)
    finally:
        await consumer.close()


async def test_an_async_function_of_one_event_gets_each() -> None:
    seen: list[int] = []

    async def handler(one: RecordedEvent) -> None:
        seen.append(one.position)

    await handled(handler, delivery(event(1), event(2)))
    assert seen == [1, 2]


async def test_a_sync_function_with_a_context_learns_what_there_is_to_know() -> None:
    seen: list[Context] = []

    def handler(one: RecordedEvent, context: Context) -> None:
        seen.append(context)

    await handled(handler, delivery(event(1)))
    assert seen == [Context(subscription="totals", partition=3, epoch=5, attempt=2, replaying=False, consumer=4)]


async def test_a_batch_is_a_list() -> None:
    seen: list[Sequence[RecordedEvent]] = []

    def handler(many: list[RecordedEvent]) -> None:
        seen.append(many)

    await handled(handler, delivery(event(1), event(2)), batch_size=10)
    assert [[e.position for e in many] for many in seen] == [[1, 2]]
    assert isinstance(seen[0], list)


async def test_a_class_is_made_once_started_and_stopped() -> None:
    calls: list[str] = []

    class Alerts:
        def __init__(self) -> None:
            calls.append("made")

        async def start(self) -> None:
            calls.append("started")

        def handle(self, one: RecordedEvent) -> None:
            calls.append("handled")

        def stop(self) -> None:
            calls.append("stopped")

    await handled(Alerts, delivery(event(1), event(2)))
    assert calls == ["made", "started", "handled", "handled", "stopped"]


async def test_sync_code_runs_in_one_thread_of_its_own() -> None:
    threads: set[int] = set()

    def handler(one: RecordedEvent) -> None:
        threads.add(threading.get_ident())

    await handled(handler, delivery(event(1), event(2)))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_a_hanging_sync_handler_is_left_behind_when_cancelled() -> None:
    hang, begun, seen = threading.Event(), threading.Event(), []

    def handler(one: RecordedEvent) -> None:
        begun.set()
        if one.position == 1:
            hang.wait()
        seen.append(one.position)

    consumer = LocalConsumer(Handler(handler, SubscriptionOptions()), Ledger())
    first = asyncio.create_task(consumer.handle(delivery(event(1))))
    await asyncio.to_thread(begun.wait)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await consumer.handle(delivery(event(2)))
    assert seen == [2]
    hang.set()
    await consumer.close()


async def test_what_was_left_behind_in_a_thread_commits_nothing_when_it_ends_late() -> None:
    class Telling(Ledger):
        ended = threading.Event()

        @contextlib.contextmanager
        def open_sync(self, grant: Grant, progress: Progress | Retried) -> Iterator[str]:
            try:
                with super().open_sync(grant, progress) as transaction:
                    yield transaction
            finally:
                self.ended.set()

    hang, begun, ledger = threading.Event(), threading.Event(), Telling()

    def handler(_: RecordedEvent) -> None:
        begun.set()
        hang.wait()

    consumer = LocalConsumer(Handler(handler, SubscriptionOptions()), ledger)
    running = asyncio.create_task(consumer.handle(delivery(event(1), commit=Progress(1))))
    await asyncio.to_thread(begun.wait)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    hang.set()
    await asyncio.to_thread(ledger.ended.wait)
    assert ledger.committed == []
    await consumer.close()


async def test_exactly_once_gives_the_kind_of_transaction_that_fits_and_commits_after_the_handler() -> None:
    ledger, seen = Ledger(), []

    def in_thread(one: RecordedEvent, context: Context) -> None:
        seen.append((context.transaction, list(ledger.committed)))

    async def on_loop(one: RecordedEvent, context: Context) -> None:
        seen.append((context.transaction, list(ledger.committed)))

    await handled(in_thread, delivery(event(1), commit=Progress(1)), ledger)
    await handled(on_loop, delivery(event(2), commit=Progress(2)), ledger)
    assert seen == [("sync", []), ("async", [Progress(1)])]
    assert ledger.committed == [Progress(1), Progress(2)]


async def test_a_failing_handler_commits_nothing() -> None:
    ledger = Ledger()

    def handler(one: RecordedEvent) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await handled(handler, delivery(event(1), commit=Progress(1)), ledger)
    assert ledger.committed == []


def double(one: RecordedEvent) -> int:
    return one.position * 2


async def test_a_mapper_decides_what_the_handler_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr("headwater.subscriptions.handler.resolve", {"here:double": double}.__getitem__)
    await handled(lambda one: seen.append(one), delivery(event(4)), mapper="here:double")
    assert seen == [8]


@pytest.mark.parametrize(
    "target",
    [
        functools.partial(lambda table, one, context: seen_by.append((table, context.attempt)), "totals"),
        functools.partial(lambda one, context, *, table: seen_by.append((table, context.attempt)), table="totals"),
    ],
)
async def test_a_partial_takes_what_is_left_to_take(target: Any) -> None:
    seen_by.clear()
    await handled(target, delivery(event(1)))
    assert seen_by == [("totals", 2)]


seen_by: list[tuple[str, int]] = []


@pytest.mark.parametrize(
    "target", [functools.partial(lambda one: None, 1), lambda: None, lambda a, b, c: None, 7, object]
)
def test_what_is_not_a_handler_is_refused(target: object) -> None:
    with pytest.raises(ConfigurationError):
        Handler(target, SubscriptionOptions())
