"""What the read models must show, computed straight from the raw rows.

Goes around the events on purpose: no code that makes or handles an event is used here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from examples.flights.source import MISSING, Row

DELAY_FIGURES = ("flights", "departed", "arrived", "cancelled", "diverted", "departure_minutes", "arrival_minutes")
AIRPORT_FIGURES = ("departures", "arrivals", "cancellations", "diversions")


@dataclass
class Expected:
    """The figures that a correct run ends with."""

    events: Counter[str] = field(default_factory=Counter)
    """How many events of each type there are."""
    delays: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By carrier and month, the DELAY_FIGURES."""
    airports: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By airport, the AIRPORT_FIGURES."""
    cancellations: set[str] = field(default_factory=set)
    diversions: set[str] = field(default_factory=set)

    @property
    def total_events(self) -> int:
        """How many events there are in all."""
        return self.events.total()


def expect(rows: Iterable[Row]) -> Expected:
    """Compute the figures of these flights."""
    found = Expected()
    for row in rows:
        month = f"{row.year}-{int(row.month):02}"
        key = f"{row.carrier}{row.flight}-{row.origin}-{month}-{int(row.day):02}"
        delays = found.delays[f"{row.carrier} {month}"]
        delays["flights"] += 1
        found.events["FlightScheduled"] += 1
        if row.dep_time == MISSING:
            delays["cancelled"] += 1
            found.events["FlightCancelled"] += 1
            found.airports[row.origin]["cancellations"] += 1
            found.cancellations.add(key)
            continue
        delays["departed"] += 1
        delays["departure_minutes"] += int(row.dep_delay)
        found.events["FlightDeparted"] += 1
        found.airports[row.origin]["departures"] += 1
        if row.air_time == MISSING:
            delays["diverted"] += 1
            found.events["FlightDiverted"] += 1
            found.airports[row.dest]["diversions"] += 1
            found.diversions.add(key)
        if row.arr_time != MISSING:
            delays["arrived"] += 1
            delays["arrival_minutes"] += 0 if row.arr_delay == MISSING else int(row.arr_delay)
            found.events["FlightArrived"] += 1
            found.airports[row.dest]["arrivals"] += 1
    return found
