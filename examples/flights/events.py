"""What happened to each flight, as events, in the order in which it happened.

Pure and lazy: about three days of flights are held at a time, whatever their number, and the same flights always give
the same events with the same ids.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from examples.flights.flight import Flight
from headwater import NewEvent

SCHEDULED: Final = "FlightScheduled"
DEPARTED: Final = "FlightDeparted"
DIVERTED: Final = "FlightDiverted"
ARRIVED: Final = "FlightArrived"
CANCELLED: Final = "FlightCancelled"

CHECK_IN: Final = timedelta(hours=24)
"""The file does not say when a flight was announced: it counts as scheduled when its check-in opens, a day ahead."""


class Happening(NamedTuple):
    """One thing that happened, sortable by time; the later fields keep equal times in one order for ever."""

    at: datetime
    number: int
    """The flight's place among the flights."""
    step: int
    """The event's place among the flight's own."""
    type: str
    flight: Flight


def happenings(flight: Flight, number: int = 0) -> list[Happening]:
    """Return what happened to one flight, in order.

    Two times are not in the file: a cancellation counts at the scheduled departure, a diversion at the scheduled
    arrival (never before the departure or after the arrival).
    """
    facts = [(flight.scheduled_departure - CHECK_IN, SCHEDULED)]
    if flight.departed is None:
        facts.append((flight.scheduled_departure, CANCELLED))
    else:
        facts.append((flight.departed, DEPARTED))
        if flight.diverted:
            expected = max(flight.scheduled_arrival, flight.departed)
            facts.append((min(expected, flight.arrived) if flight.arrived else expected, DIVERTED))
        if flight.arrived is not None:
            facts.append((flight.arrived, ARRIVED))
    return [Happening(at, number, step, type, flight) for step, (at, type) in enumerate(facts)]


def in_order(flights: Iterable[Flight]) -> Iterator[Happening]:
    """Merge what happened to all flights by time. The flights must come by scheduled day, in any order within it."""
    open_: list[Happening] = []
    numbered = enumerate(flights)
    for _, day in itertools.groupby(numbered, key=lambda entry: entry[1].day):
        new = [happening for number, flight in day for happening in happenings(flight, number)]
        # Nothing of this day or a later one is earlier than its first happening: what is before that is complete.
        first = min(new)
        while open_ and open_[0] < first:
            yield heapq.heappop(open_)
        for happening in new:
            heapq.heappush(open_, happening)
    while open_:
        yield heapq.heappop(open_)


def new_event(happening: Happening) -> NewEvent:
    """Make the event to append. ``at`` in its data is when it happened; the store adds when it was stored."""
    flight, type = happening.flight, happening.type
    data: dict[str, Any] = {
        "flight": flight.key,
        "carrier": flight.carrier,
        "tail": flight.tail,
        "origin": flight.origin,
        "dest": flight.dest,
        "airport": flight.dest if type in (ARRIVED, DIVERTED) else flight.origin,
        "day": flight.day,
        "at": happening.at.isoformat(),
    }
    if type == SCHEDULED:
        data["departure"] = flight.scheduled_departure.isoformat()
        data["arrival"] = flight.scheduled_arrival.isoformat()
    elif type == DEPARTED:
        data["delay"] = flight.departure_delay
    elif type == ARRIVED:
        data["delay"] = flight.arrival_delay
    return NewEvent(type, data, id=event_id(happening))


def event_id(happening: Happening) -> uuid.UUID:
    """Return the event's id: a version 7 UUID of when and what happened, so that appending it twice stores it once."""
    digest = hashlib.blake2b(f"{happening.flight.key} {happening.type}".encode(), digest_size=10).digest()
    value = int(happening.at.timestamp() * 1000) << 80 | int.from_bytes(digest, "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)
