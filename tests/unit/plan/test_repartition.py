"""Another number of partitions loses nothing, repeats nothing and keeps the order, however far each old one came."""

from __future__ import annotations

import random
import uuid
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater import RecordedEvent
from headwater.cluster.repartition import successor
from headwater.storage.leases import Progress
from headwater.storage.registry import PartitionSet
from headwater.subscriptions.keys import sieve_of
from headwater.subscriptions.options import SubscriptionOptions

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def event(number: int, key: int) -> RecordedEvent:
    data = b'{"even": "%d"}' % (key % 2)
    return RecordedEvent(
        number, f"s-{key}", number, number, uuid.UUID(int=number), "T", data, None, None, None, NOW, None, 1
    )


class World:
    """A log of events, a set of partitions that get on at any pace, and what was handled."""

    def __init__(self, seed: int, events: int) -> None:
        self.random = random.Random(seed)
        self.log = [event(n, self.random.randrange(12)) for n in range(1, events + 1)]
        self.set = PartitionSet(None, [Progress(0)], [False])
        self.handled: list[RecordedEvent] = []

    def get_on(self, partition: int, to: int) -> None:
        """Let one partition handle everything of its share up to a number."""
        checkpoint = self.set.progress[partition].checkpoint
        if to <= checkpoint:
            return
        options = SubscriptionOptions(partitions=len(self.set.progress), partition_by=self.set.partition_by)
        sieve = sieve_of(options, partition, self.set.seam if self.set.seamed[partition] else None)
        while checkpoint < to:
            page = self.log[checkpoint : min(to, checkpoint + 7)]
            self.handled.extend(sieve.sift(page, with_keys=True).events)
            checkpoint = page[-1].number
        self._set(partition, Progress(checkpoint, checkpoint), seamed=self.set.seamed[partition])

    def rewind(self, partition: int, to: int) -> None:
        self._set(partition, Progress(to, to), seamed=False)

    def repartition(self, to: int, partition_by: str | None) -> None:
        self.set = successor(self.set, to, partition_by)

    def _set(self, partition: int, progress: Progress, *, seamed: bool) -> None:
        all_progress, all_seamed = list(self.set.progress), list(self.set.seamed)
        all_progress[partition], all_seamed[partition] = progress, seamed
        self.set = replace(self.set, progress=all_progress, seamed=all_seamed)


@settings(max_examples=150)
@given(
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(1, 7), st.sampled_from([None, "stream", "data.even", "none"])), max_size=5),
)
def test_every_event_is_handled_once_and_in_the_order_of_its_stream(
    seed: int, changes: list[tuple[int, str | None]]
) -> None:
    world = World(seed, 60)
    for to, partition_by in [*changes, (world.random.randint(1, 5), None)]:
        for partition in range(len(world.set.progress)):
            world.get_on(partition, world.random.randint(0, 60))
        world.repartition(to, partition_by)
    for partition in range(len(world.set.progress)):
        world.get_on(partition, 60)
    assert sorted(e.number for e in world.handled) == list(range(1, 61))
    if all(partition_by != "none" for _, partition_by in changes):
        by_stream: dict[str, list[int]] = defaultdict(list)
        for e in world.handled:
            by_stream[e.stream].append(e.number)
        assert all(numbers == sorted(numbers) for numbers in by_stream.values())


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
def test_a_rewound_partition_delivers_again_what_earlier_sets_had_settled(seed: int, first: int, second: int) -> None:
    world = World(seed, 40)
    world.repartition(first, None)
    for partition in range(first):
        world.get_on(partition, world.random.randint(10, 40))
    world.repartition(second, None)
    for partition in range(second):
        world.rewind(partition, 5)
    world.repartition(3, None)
    world.handled.clear()
    for partition in range(3):
        world.get_on(partition, 40)
    assert sorted(e.number for e in world.handled) == list(range(6, 41))


def test_even_partitions_leave_no_marks_behind() -> None:
    new = successor(PartitionSet(None, [Progress(9, 9)] * 4, [False] * 4), 3, None)
    assert new == PartitionSet(None, [Progress(9, 9)] * 3, [False] * 3, None)


def test_twice_as_many_partitions_each_follow_one_old_one() -> None:
    new = successor(PartitionSet(None, [Progress(10), Progress(30)], [False] * 2), 4, None)
    assert [each.checkpoint for each in new.progress] == [10, 30, 10, 30]
    assert new.seamed == [False] * 4


@pytest.mark.parametrize(("to", "suspect"), [(1, [(40, 3)]), (2, [(10, 0), (40, 3)])])
def test_what_may_have_reached_a_dead_owners_handler_stays_suspect(to: int, suspect: list[tuple[int, int]]) -> None:
    new = successor(PartitionSet(None, [Progress(10, 10), Progress(20, 40, 3)], [False] * 2), to, None)
    assert [(each.in_flight_to, each.attempt) for each in new.progress] == suspect


def test_a_partition_that_counts_in_a_stream_that_is_gone_has_settled_nothing() -> None:
    old = [Progress(90, 90, stream_id=1), Progress(5, 5, stream_id=2)]
    new = successor(PartitionSet(None, old, [True, True], [[None, [80], [0]]]), 1, None)
    assert new.progress == [Progress(0, 0, stream_id=2)]
    assert new.seam is not None
    assert new.seam[0] == [None, [0, 5], [0, 1]]
