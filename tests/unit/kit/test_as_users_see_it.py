"""Subscriptions from outside: filters, mappers, deleted streams, slow handlers, doubled hints, what can be watched."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from headwater import Filter, NewEvent, RecordedEvent
from headwater.storage.leases import PartitionKey, Progress
from headwater.storage.model import EventPage
from headwater.subscriptions.core import effects, inputs
from headwater.subscriptions.observer import Observer, Status
from headwater.subscriptions.options import CURRENT, ORIGIN, RetryPolicy, Start, SubscriptionOptions
from headwater.subscriptions.ports import Delivered
from headwater.subscriptions.testing.builders import recorded
from headwater.subscriptions.testing.runtime import MemoryRuntime
from tests.plugins.waiting import until
from tests.unit.core.steering import Steering

HERE = "tests.unit.kit.test_as_users_see_it"


def even(event: RecordedEvent) -> bool:
    return event.position % 2 == 0


def position(event: RecordedEvent) -> int:
    return event.position


def happened(count: int) -> list[NewEvent]:
    return [NewEvent("Happened", {"n": n}) for n in range(count)]


class Batches:
    """A handler that keeps what it was given."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[list[Any]] = []
        self._seconds = seconds

    async def __call__(self, items: Sequence[Any]) -> None:
        self.batches.append(list(items))
        await asyncio.sleep(self._seconds)

    @property
    def items(self) -> list[Any]:
        return [item for batch in self.batches for item in batch]


@pytest.mark.parity("T312", "T313", "T316", "T366", "T367", "T368")
@pytest.mark.parametrize(
    ("functions", "old", "new"),
    [
        ({"mapper": f"{HERE}:position"}, [1, 2, 3], [4, 5, 6]),
        ({"selector": f"{HERE}:even"}, [2], [4, 6]),
        ({"selector": f"{HERE}:even", "mapper": f"{HERE}:position"}, [2], [4, 6]),
    ],
    ids=["mapper", "selector", "both"],
)
async def test_a_selector_and_a_mapper_are_found_by_their_paths_and_hold_for_old_and_new_events(
    functions: dict[str, str], old: list[int], new: list[int]
) -> None:
    handler = Batches()

    def seen() -> list[int]:
        """What was handled: plain numbers from the mapper, and events without it."""
        assert all(isinstance(item, int) == ("mapper" in functions) for item in handler.items)
        return [item if isinstance(item, int) else item.position for item in handler.items]

    async with MemoryRuntime() as runtime:
        await runtime.append("a", *happened(3))
        await runtime.run("some", handler, SubscriptionOptions(batch_size=2, **functions))  # type: ignore[arg-type]
        await runtime.caught_up()
        assert seen() == old
        await runtime.append("a", *happened(3))
        await runtime.caught_up()
        assert seen() == old + new


@pytest.mark.parity("T314")
async def test_a_selector_holds_over_two_appends() -> None:
    handler = Batches()
    async with MemoryRuntime() as runtime:
        await runtime.run("even", handler, SubscriptionOptions(batch_size=3, selector=f"{HERE}:even"))
        await runtime.append("a", *happened(3))
        await runtime.caught_up()
        assert [event.position for event in handler.items] == [2]
        await runtime.append("a", *happened(3))
        await runtime.caught_up()
        assert [event.position for event in handler.items[1:]] == [4, 6]


@pytest.mark.parity("T315")
async def test_what_a_selector_lets_through_comes_in_full_batches_while_it_catches_up() -> None:
    handler = Batches()
    async with MemoryRuntime() as runtime:
        await runtime.append("a", *happened(6))
        await runtime.run("even", handler, SubscriptionOptions(batch_size=2, selector=f"{HERE}:even"))
        await runtime.caught_up()
    assert [[event.position for event in batch] for batch in handler.batches] == [[2, 4], [6]]


def odd(event: RecordedEvent) -> bool:
    return event.position % 2 == 1


@pytest.mark.parity("T358", "T359", "T360")
@pytest.mark.parametrize("start", [ORIGIN, CURRENT], ids=repr)
@pytest.mark.parametrize(("stored", "live"), [(100, 0), (100, 100), (0, 100)])
async def test_a_selector_holds_while_catching_up_and_live(start: Start, stored: int, live: int) -> None:
    handler = Batches()
    async with MemoryRuntime() as runtime:
        if stored:
            await runtime.append("a", *happened(stored))
        await runtime.run("odd", handler, SubscriptionOptions(selector=f"{HERE}:odd", start=start, batch_size=7))
        await runtime.caught_up()
        for _ in range(live // 10):
            await runtime.append("a", *happened(10))
        await runtime.caught_up()
        first = 1 if start is ORIGIN else stored + 1
        assert [event.position for event in handler.items] == list(range(first, stored + live + 1, 2))


@pytest.mark.parity("E21")
async def test_a_beginning_beyond_the_end_is_waited_for() -> None:
    handler = Batches()
    async with MemoryRuntime() as runtime:
        await runtime.append("a", *happened(2))
        await runtime.run("later", handler, SubscriptionOptions(start=4, batch_size=10))
        await runtime.append("a", *happened(2))
        await runtime.append("a", *happened(2))
        await runtime.caught_up()
        await until(lambda: len(handler.items) == 2)
        assert [event.position for event in handler.items] == [5, 6]


async def test_a_filter_is_applied_by_the_store_and_the_watermark_passes_the_rest() -> None:
    handler = Batches()
    options = SubscriptionOptions(batch_size=5, where=Filter(categories=("order",)))
    async with MemoryRuntime() as runtime:
        await runtime.run("orders", handler, options)
        await runtime.append("order-1", *happened(1))
        await runtime.append("other-1", *happened(9))
        await runtime.caught_up()
        assert [event.stream for event in handler.items] == ["order-1"]
        assert runtime.status("orders").watermark == 10


@pytest.mark.parity("T327")
async def test_every_subscription_gets_every_event() -> None:
    handlers = [Batches() for _ in range(4)]
    async with MemoryRuntime() as runtime:
        for number, handler in enumerate(handlers):
            await runtime.run(f"all-{number}", handler, SubscriptionOptions(batch_size=10))
        await runtime.append("a", *happened(3))
        await runtime.append("b", *happened(3))
        await runtime.caught_up()
    assert [[event.position for event in handler.items] for handler in handlers] == [[1, 2, 3, 4, 5, 6]] * 4


@pytest.mark.parity("T326")
async def test_a_stream_and_everything_bring_the_same_events_each_with_its_own_numbers() -> None:
    one, everything = Batches(), Batches()
    async with MemoryRuntime() as runtime:
        await runtime.append("other", *happened(2))
        await runtime.run("one", one, SubscriptionOptions(source="a", batch_size=10))
        await runtime.run("all", everything, SubscriptionOptions(start=2, batch_size=10))
        await runtime.append("a", *happened(3))
        await runtime.caught_up()
    assert [event.number for event in one.items] == [1, 2, 3]
    assert [event.number for event in everything.items] == [3, 4, 5]
    assert [event.id for event in one.items] == [event.id for event in everything.items]


@pytest.mark.parity("E16")
async def test_a_soft_delete_delivers_nothing() -> None:
    one, everything = Batches(), Batches()
    async with MemoryRuntime() as runtime:
        await runtime.append("a", *happened(2))
        await runtime.run("one", one, SubscriptionOptions(source="a", batch_size=10))
        await runtime.run("all", everything, SubscriptionOptions(batch_size=10))
        await runtime.caught_up()
        await runtime.store.delete_stream("a")
        await runtime.append("b", *happened(1))
        await runtime.caught_up("all")
        assert [event.position for event in everything.items] == [1, 2, 3], "the delete is no event"
        assert [event.position for event in one.items] == [1, 2]


@pytest.mark.parity("T345", "T346")
@pytest.mark.parametrize(("hard", "expected"), [(False, [1, 2, 3, 4, 5, 6]), (True, [1, 2, 5, 6])])
async def test_events_of_deleted_streams_are_delivered_unless_they_are_gone(hard: bool, expected: list[int]) -> None:
    handler = Batches()
    async with MemoryRuntime() as runtime:
        await runtime.append("a", *happened(2))
        await runtime.append("b", *happened(2))
        await runtime.append("c", *happened(2))
        await runtime.store.delete_stream("b", hard=hard)
        await runtime.run("all", handler, SubscriptionOptions(batch_size=2))
        await runtime.caught_up()
        assert [event.position for event in handler.items] == expected
        assert runtime.status("all").watermark == 6


@pytest.mark.parity("L16")
async def test_a_soft_deleted_stream_is_waited_for_with_a_reason_and_goes_on_when_it_is_undeleted() -> None:
    handler, watching = Batches(), Watching()
    async with MemoryRuntime(observer=watching) as runtime:
        await runtime.append("a", *happened(2))
        await runtime.run("a", handler, SubscriptionOptions(batch_size=5, source="a"))
        await runtime.caught_up()
        await runtime.store.delete_stream("a")
        await until(lambda: runtime.status("a").phase.value == "stuck")
        status = runtime.status("a")
        assert status.reason == "the stream 'a' is soft-deleted: undelete it, or delete the subscription"
        assert watching.statuses[-1].reason == status.reason, "programs are told, and need not ask"
        await runtime.store.undelete_stream("a")
        await runtime.append("a", *happened(1))
        await until(lambda: len(handler.items) == 3)
        assert [event.version for event in handler.items] == [1, 2, 3]
        assert (runtime.status("a").phase.value, runtime.status("a").reason) == ("running", None)


@pytest.mark.parity("L15")
async def test_a_stream_that_is_deleted_for_good_is_told_of_until_there_is_a_new_one() -> None:
    handler, watching = Batches(), Watching()
    async with MemoryRuntime(observer=watching) as runtime:
        await runtime.run("a", handler, SubscriptionOptions(batch_size=5, source="a"))
        await runtime.append("b", *happened(1))
        await runtime.append("a", *happened(2))
        await runtime.caught_up("a")
        assert [status.phase.value for status in watching.statuses] == ["running"], "it need not be there yet"
        await runtime.store.delete_stream("a", hard=True)
        await until(lambda: runtime.status("a").phase.value == "stuck")
        assert "'a' was deleted for good" in (runtime.status("a").reason or "")
        await runtime.append("a", *happened(1))
        await until(lambda: len(handler.items) == 3)
        assert (runtime.status("a").phase.value, runtime.status("a").reason) == ("running", None)
        assert [status.phase.value for status in watching.statuses] == ["running", "stuck", "running"]


@pytest.mark.parity("T361", "T362", "T363")
@pytest.mark.parametrize(("stored", "live"), [(20, 0), (10, 20), (0, 20)], ids=["catching up", "both", "live"])
async def test_a_slow_handler_gets_everything_in_order_while_others_append(stored: int, live: int) -> None:
    handler = Batches(seconds=0.001)
    async with MemoryRuntime() as runtime:
        if stored:
            await runtime.append("a", *happened(stored))
        options = SubscriptionOptions(batch_size=2, selector=f"{HERE}:odd", read_size=4, max_in_flight=4)
        await runtime.run("slow", handler, options)
        for _ in range(live // 2):
            await runtime.append("a", *happened(2))
        await runtime.caught_up()
        assert [event.position for event in handler.items] == list(range(1, stored + live, 2))


@pytest.mark.parity("T373", "L17")
def test_doubled_hints_lead_to_one_delivery_and_to_no_more_timers() -> None:
    it = Steering(0)
    it.append(*Steering(1).events)
    wake_at = it.machine.wake_at
    for _ in range(20):
        it.tell(inputs.HeadSeen(1))
    assert it.delivered == [[1]]
    assert it.machine.wake_at == wake_at


def odd_only(event: RecordedEvent) -> object:
    if event.position % 2 == 0:
        raise ZeroDivisionError("even")
    return event.stream


@pytest.mark.parity("L7")
@pytest.mark.parametrize("function", ["selector", "mapper", "partition_by"])
async def test_a_function_of_the_user_that_raises_is_a_failure_of_that_event_and_of_no_other(function: str) -> None:
    handler = Batches()
    options = SubscriptionOptions(
        **{function: f"{HERE}:odd_only"},  # type: ignore[arg-type]
        batch_size=2,
        consumers=2 if function == "partition_by" else 0,
        retry=RetryPolicy(attempts=1),
    )
    async with MemoryRuntime() as runtime:
        await runtime.run("odd", handler, options)
        for stream in ("a", "b", "c", "d"):
            await runtime.append(stream, *happened(1))
        await runtime.caught_up()
        assert len(handler.items) == 2
        assert [each.event.position for each in runtime.parked("odd")] == [2, 4]
        await runtime.append("e", *happened(1))
        await runtime.caught_up()
        assert len(handler.items) == 3


def calls_of(work: Callable[[], object]) -> int:
    """Count the calls that a piece of work consists of, those into C included: its cost, without a clock."""
    count = 0

    def noted(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(noted)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


class Counted(int):
    """A number that counts how often it is compared: what sorting costs."""

    compared = 0

    def __lt__(self, other: int) -> bool:
        Counted.compared += 1
        return int(self) < int(other)


@pytest.mark.parity("L24")
@pytest.mark.parametrize("consumers", [0, 8])
def test_what_one_more_event_costs_does_not_grow_with_what_is_in_flight(consumers: int) -> None:
    def cost(in_flight: int) -> int:
        stored = [
            recorded(Counted(n), f"s-{n % 50}", number=Counted(n), version=Counted(n)) for n in range(1, 2 * in_flight)
        ]
        it = Steering(stored, consumers=consumers, max_in_flight=in_flight, read_size=in_flight)
        # All but what is left of the page is in flight: nothing more is read within what is counted.
        it.hold = (effects.Read, effects.Save)
        assert it.machine.unsettled == in_flight
        before = Counted.compared

        def handle() -> None:
            for _ in range(50):
                it.handle()

        return calls_of(handle) + Counted.compared - before

    few, many = cost(200), cost(6_400)
    assert many <= 1.5 * few, "32 times as much in flight"


class Watching(Observer):
    """Counts everything that can be watched."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.statuses: list[Status] = []

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def status_changed(self, key: PartitionKey, status: Status) -> None:
        self.statuses.append(status)

    def page_read(self, key: PartitionKey, page: EventPage, seconds: float) -> None:
        self._count("page read")

    def delivered(self, key: PartitionKey, delivery: Delivered) -> None:
        self._count("delivered")

    def handled(self, key: PartitionKey, delivery: Delivered, seconds: float) -> None:
        self._count("handled")

    def failed(self, key: PartitionKey, delivery: Delivered, error: BaseException, seconds: float) -> None:
        self._count("failed")

    def parked(self, key: PartitionKey, parked: Sequence[Any]) -> None:
        self._count("parked")

    def checkpointed(self, key: PartitionKey, progress: Progress) -> None:
        self._count("checkpointed")


@pytest.mark.parity("L15", "L30")
async def test_everything_that_happens_can_be_watched() -> None:
    async def fail_on_second(event: RecordedEvent) -> None:
        if event.position == 2:
            raise ValueError("second")

    watching = Watching()
    async with MemoryRuntime(observer=watching) as runtime:
        await runtime.run("watched", fail_on_second, SubscriptionOptions(retry=RetryPolicy(attempts=2)))
        for stream in ("a", "b", "c"):
            await runtime.append(stream, *happened(1))
        await runtime.caught_up()
        await until(lambda: "checkpointed" in watching.counts)
    assert watching.counts["delivered"] == 4
    assert watching.counts["handled"] == 2
    assert watching.counts["failed"] == 2
    assert watching.counts["parked"] == 1
    assert watching.statuses[0].phase.value == "running"
    assert any("second" in (status.reason or "") for status in watching.statuses)
    assert watching.statuses[-1].phase.value == "finished"
