"""A user's handler in simulated histories: what it does wrong under crashes is found, and what it does right passes."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from headwater import (
    Context,
    Delivery,
    Filter,
    InvalidArgument,
    NewEvent,
    OnFailure,
    RecordedEvent,
    RetryPolicy,
    SubscriptionOptions,
)
from headwater.testing import History, Weather, simulate

SEEDS = range(20)
FAIR = Weather(**dict.fromkeys((field for field in Weather.__dataclass_fields__), 0.0))


def paid(random: Random) -> tuple[str, NewEvent]:
    return f"account-{random.randrange(5)}", NewEvent("Paid", {"cents": random.randrange(1, 100)})


class Balances:
    """A read model; without ``once`` it counts what comes again once more."""

    def __init__(self, *, once: bool) -> None:
        self.cents: dict[str, int] = {}
        self._seen: set[int] = set()
        self._once = once

    def add(self, event: RecordedEvent) -> None:
        if self._once and event.position in self._seen:
            return
        self._seen.add(event.position)
        self.cents[event.stream] = self.cents.get(event.stream, 0) + event.data["cents"]

    async def add_all(self, events: list[RecordedEvent], context: Context) -> None:
        assert context.attempt >= 1
        for event in events:
            self.add(event)


def fold(history: History) -> dict[str, int]:
    cents: dict[str, int] = {}
    for event in history.handled:
        cents[event.stream] = cents.get(event.stream, 0) + event.data["cents"]
    return cents


def play(seed: int, *, once: bool, batch: bool, **more: Any) -> tuple[History, dict[str, int]]:
    balances = Balances(once=once)
    options = SubscriptionOptions(batch_size=5 if batch else 1, **more)
    handler = balances.add_all if batch else balances.add
    return simulate(seed, handler=handler, options=options, events=paid), balances.cents


@pytest.mark.parametrize("batch", [False, True], ids=["one, sync", "batches, async"])
@pytest.mark.parametrize("consumers", [0, 3])
def test_a_handler_that_is_not_idempotent_is_found_and_its_mended_version_passes(batch: bool, consumers: int) -> None:
    wrong, crashes = 0, 0
    for seed in SEEDS:
        history, cents = play(seed, once=False, batch=batch, consumers=consumers)
        wrong += cents != fold(history)
        history, cents = play(seed, once=True, batch=batch, consumers=consumers)
        assert cents == fold(history), f"seed {seed}"
        assert len(history.handled) + len(history.parked) >= history.events > 0
        crashes += history.crashes
    assert wrong > len(SEEDS) / 2
    assert crashes > 0


@pytest.mark.parametrize("batch", [False, True], ids=["one, sync", "batches, async"])
def test_a_seed_plays_the_same_history_again_for_a_handler_too(batch: bool) -> None:
    assert play(7, once=False, batch=batch) == play(7, once=False, batch=batch)


async def test_it_can_be_simulated_within_a_test_that_runs_on_a_loop() -> None:
    assert play(7, once=True, batch=True) == play(7, once=True, batch=True)


def test_in_fair_weather_everything_is_handled_once_and_in_the_order_of_each_stream() -> None:
    seen: list[RecordedEvent] = []
    history = simulate(3, weather=FAIR, handler=seen.append, events=paid)
    assert sorted(seen, key=lambda event: event.position) == list(history.handled)
    assert (len(seen), history.parked, history.crashes) == (history.events, (), 0)
    versions: Counter[str] = Counter()
    for event in seen:
        versions[event.stream] += 1
        assert event.version == versions[event.stream]


def test_at_most_once_nothing_is_handled_twice_whatever_happens() -> None:
    for seed in SEEDS:
        seen: list[RecordedEvent] = []
        policy = RetryPolicy(then=OnFailure.SKIP)
        options = SubscriptionOptions(delivery=Delivery.AT_MOST_ONCE, retry=policy)
        simulate(seed, handler=seen.append, options=options)
        assert 0 < len({event.position for event in seen}) == len(seen), f"seed {seed}"


def test_what_a_handler_keeps_in_itself_is_gone_with_its_owner() -> None:
    made: list[Keeping] = []

    class Keeping:
        def __init__(self) -> None:
            made.append(self)
            self.started = False

        async def start(self) -> None:
            self.started = True

        async def handle(self, event: RecordedEvent) -> None:
            assert self.started

    history = simulate(1, handler=Keeping)
    assert 1 < len(made) <= history.grants
    assert history.parked == ()


def test_the_users_own_errors_are_retried_and_parked_and_his_events_come_in_their_order() -> None:
    attempts: Counter[int] = Counter()

    def refuse_the_second(event: RecordedEvent) -> None:
        attempts[event.position] += 1
        if event.data == 2:
            raise ValueError("two")

    events = [(f"s-{number}", NewEvent("Counted", number)) for number in (1, 2, 3)]
    retry = RetryPolicy(attempts=3)
    history = simulate(
        5, weather=FAIR, handler=refuse_the_second, options=SubscriptionOptions(retry=retry), events=events
    )
    assert [event.data for event in history.handled] == [1, 3]
    assert [(each.event.data, each.error) for each in history.parked] == [(2, "ValueError: two")]
    assert (history.events, attempts[history.parked[0].event.position]) == (3, 3)


def odd(event: RecordedEvent) -> bool:
    return bool(event.data["cents"] % 2)


def test_filter_and_selector_hold() -> None:
    seen: list[RecordedEvent] = []
    options = SubscriptionOptions(where=Filter(types=("Paid",)), selector=f"{__name__}:odd")

    def draw(random: Random) -> tuple[str, NewEvent]:
        stream, event = paid(random)
        return stream, event if random.random() < 0.5 else NewEvent("Refunded", event.data)

    history = simulate(2, handler=seen.append, options=options, events=draw)
    assert 0 < len(history.handled) < history.events
    assert all(event.type == "Paid" and odd(event) for event in seen)


def handle(event: RecordedEvent) -> None: ...


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"steps": -1}, "steps"),
        ({"steps": 0}, "steps"),
        ({"owners": 0}, "owners"),
        ({"owners": "3"}, "owners"),
        ({"weather": 3}, "weather"),
        ({"options": SubscriptionOptions()}, "options"),
        ({"events": []}, "events"),
        ({"handler": handle, "events": [3]}, "events"),
        ({"handler": handle, "events": lambda _: "stream"}, "events"),
        ({"handler": handle, "events": [("s", NewEvent("A", {1, 2}))]}, "events"),
        ({"handler": handle, "options": SubscriptionOptions(delivery=Delivery.EXACTLY_ONCE)}, "options"),
        ({"handler": handle, "options": SubscriptionOptions(source="s")}, "options"),
        ({"handler": handle, "options": SubscriptionOptions(start=3)}, "options"),
        ({"handler": handle, "options": SubscriptionOptions(replaces="old")}, "options"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(arguments: dict[str, Any], argument: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        simulate(1, **arguments)
    assert refused.value.argument == argument


@pytest.mark.parametrize("share", [-0.1, 1.5, "much"])
def test_a_weather_has_probabilities(share: Any) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Weather(lease_lost=share)
    assert refused.value.argument == "lease_lost"


def test_a_seed_is_a_number() -> None:
    with pytest.raises(InvalidArgument) as refused:
        simulate("7")  # type: ignore[arg-type]
    assert refused.value.argument == "seed"
