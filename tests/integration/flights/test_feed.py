"""Appending what happened, on a real store."""

from __future__ import annotations

import itertools
from collections import defaultdict

from examples.flights.events import Happening, in_order
from examples.flights.feed import STEP, feed
from examples.flights.flight import parse
from examples.flights.source import rows
from headwater import EventStore, connect

FLIGHTS = 1200


def happenings() -> list[Happening]:
    return list(in_order(parse(row) for row in rows(FLIGHTS, seed=11)))


async def at_once() -> None:
    """There is always room."""


async def feed_all(store: EventStore) -> list[int]:
    return [count async for count in feed(store, happenings(), at_once)]


async def test_everything_is_stored_in_the_order_in_which_it_happened(database_url):
    async with connect(database_url) as store:
        steps = await feed_all(store)
        stored = [event async for event in store.stream_all()]
    assert [len(happenings())] == [sum(steps)] == [len(stored)]
    streams = defaultdict(list)
    for event in stored:
        streams[event.stream].append(event.data["at"])
    assert all(times == sorted(times) for times in streams.values())
    whole = [
        sorted(event.data["at"] for event in stored[start : start + STEP]) for start in range(0, len(stored), STEP)
    ]
    assert all(earlier[-1] <= later[0] for earlier, later in itertools.pairwise(whole))


async def test_feeding_the_same_again_stores_nothing_new(database_url):
    async with connect(database_url) as store:
        await feed_all(store)
        head = await store.head()
        await feed_all(store)
        assert await store.head() == head
