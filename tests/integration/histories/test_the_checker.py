"""The checker of histories finds what it is there for: each kind of violation, planted into a sound history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from headwater.storage.model import AppendResult, RecordedEvent
from headwater.subscriptions.testing.builders import recorded
from tests.integration.histories.test_concurrent_histories import check, check_reader
from tests.integration.histories.writers import Confirmed, History

BATCHES = [("a", 2), ("b", 1), ("gone", 2), ("a", 1), ("b", 3)]


@dataclass
class Played:
    """A history as a store without a defect would have left it."""

    history: History = field(default_factory=History)
    stored: list[RecordedEvent] = field(default_factory=list)
    head: int = 0


def played() -> Played:
    """Play appends one after the other; those to the stream "gone" are deleted for good."""
    it, versions = Played(), {"a": 0, "b": 0, "gone": 0}
    for stream, count in BATCHES:
        began = next(it.history.clock)
        first = it.head + 1
        batch = [recorded(first + n, stream, version=versions[stream] + 1 + n) for n in range(count)]
        it.head += count
        versions[stream] += count
        if stream == "gone":
            it.history.removed |= {event.position for event in batch}
            continue
        it.stored += batch
        result = AppendResult(stream, batch[0].version, batch[-1].version, first, it.head)
        it.history.confirmed.append(Confirmed(began, next(it.history.clock), result, [event.id for event in batch]))
    return it


def verify(it: Played) -> None:
    check(it.history, it.stored, it.head)
    check_reader(it.history, it.stored)


def test_a_sound_history_is_found_sound() -> None:
    verify(played())


def lose_an_event(it: Played) -> None:
    del it.stored[1]


def leave_a_gap(it: Played) -> None:
    it.stored = [event if event.position < 6 else event._replace(position=event.position + 1) for event in it.stored]
    it.head += 1


def store_an_event_twice(it: Played) -> None:
    it.head += 1
    last = it.stored[-1]
    it.stored.append(last._replace(position=it.head, version=last.version + 1))


def give_one_position_twice(it: Played) -> None:
    it.stored[1] = it.stored[1]._replace(position=1)


def leave_out_a_version(it: Played) -> None:
    it.stored[-1] = it.stored[-1]._replace(version=9)


def give_one_version_twice(it: Played) -> None:
    it.stored[1] = it.stored[1]._replace(version=1)


def keep_what_was_rolled_back(it: Played) -> None:
    it.history.undone.add(it.stored[0].id)


def let_time_fall(it: Played) -> None:
    it.stored[3] = it.stored[3]._replace(created_at=it.stored[0].created_at - timedelta(seconds=1))


def say_another_place_than_it_is(it: Played) -> None:
    first = it.history.confirmed[0]
    it.history.confirmed[0] = replace(first, ids=first.ids[::-1])


def put_it_into_another_stream(it: Played) -> None:
    it.stored[2] = it.stored[2]._replace(stream="c")


def put_what_was_confirmed_first_behind(it: Played) -> None:
    """Two appends whose order of positions is not that of their commits: the second began when the first had ended."""
    one, two = it.history.confirmed[0], it.history.confirmed[1]
    it.history.confirmed[0] = replace(one, began=two.began + 10, ended=two.ended + 10)


VIOLATIONS: Sequence[Callable[[Played], None]] = [
    lose_an_event,
    leave_a_gap,
    store_an_event_twice,
    give_one_position_twice,
    leave_out_a_version,
    give_one_version_twice,
    keep_what_was_rolled_back,
    let_time_fall,
    say_another_place_than_it_is,
    put_it_into_another_stream,
    put_what_was_confirmed_first_behind,
]


@pytest.mark.parametrize("plant", VIOLATIONS, ids=lambda plant: plant.__name__)
def test_a_planted_violation_is_found(plant: Callable[[Played], None]) -> None:
    it = played()
    plant(it)
    with pytest.raises(AssertionError):
        check(it.history, it.stored, it.head)


@pytest.mark.parametrize(
    "seen",
    [
        lambda stored: stored[1:],
        lambda stored: [*stored[:2], *stored[1:]],
        lambda stored: [stored[1], stored[0], *stored[2:]],
        lambda stored: [*stored, recorded(99)],
    ],
    ids=["lost", "twice", "out of order", "invented"],
)
def test_a_reader_that_saw_something_else_is_found(
    seen: Callable[[list[RecordedEvent]], list[RecordedEvent]],
) -> None:
    it = played()
    with pytest.raises(AssertionError):
        check_reader(it.history, seen(it.stored))
