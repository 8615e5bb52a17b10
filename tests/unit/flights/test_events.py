"""Flights become events in the order in which they happened."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from examples.flights.events import ARRIVED, CANCELLED, DEPARTED, DIVERTED, SCHEDULED, Happening, in_order, new_event
from examples.flights.expected import expect
from examples.flights.flight import parse
from examples.flights.source import rows

SAMPLE = 3000


@pytest.fixture(scope="module")
def happenings() -> list[Happening]:
    return list(in_order(parse(row) for row in rows(SAMPLE, seed=5)))


def test_everything_comes_in_the_order_in_which_it_happened(happenings):
    times = [happening.at for happening in happenings]
    assert times == sorted(times)


def test_every_flight_is_complete_and_its_own_events_are_in_order(happenings):
    told = defaultdict(list)
    for happening in happenings:
        told[happening.flight.key].append(happening.type)
    assert len(told) == SAMPLE
    assert {tuple(types) for types in told.values()} <= {
        (SCHEDULED, DEPARTED, ARRIVED),
        (SCHEDULED, CANCELLED),
        (SCHEDULED, DEPARTED, DIVERTED),
        (SCHEDULED, DEPARTED, DIVERTED, ARRIVED),
    }


def test_the_numbers_of_events_are_those_of_the_raw_rows(happenings):
    assert Counter(happening.type for happening in happenings) == expect(rows(SAMPLE, seed=5)).events


def test_every_event_has_an_id_of_its_own_that_is_the_same_each_time(happenings):
    ids = [new_event(happening).id for happening in happenings]
    assert len(set(ids)) == len(ids)
    assert ids == [new_event(happening).id for happening in happenings]
    assert {id.version for id in ids} == {7}


def test_an_event_names_the_airport_where_it_happened(happenings):
    for happening in happenings:
        event, flight = new_event(happening), happening.flight
        assert event.data["airport"] == (flight.dest if event.type in (ARRIVED, DIVERTED) else flight.origin)
