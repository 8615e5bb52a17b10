"""A flight: a row of the file with its times as moments in UTC.

Pure. How a moment is found, since the file has only local clock times without a day:

- scheduled departure: ``time_hour`` (UTC) and ``minute``;
- departure: that and ``dep_delay`` (so a delay past midnight needs no guess);
- scheduled arrival: the first time after the scheduled departure at which a clock at the destination, in its time zone,
  shows ``sched_arr_time``;
- arrival: that and ``arr_delay``. The result agrees with ``arr_time`` for every flight of the year but one, which
  landed in the night in which the clocks changed;
- a flight without ``air_time`` was diverted. When it has an ``arr_time`` all the same, it reached its destination in
  the end: at the first such clock time after its departure.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from examples.flights.source import MISSING, Row, folder

_NOT_LISTED: Final = "America/Puerto_Rico"
"""The zone of the four airports that the package's list of airports leaves out: BQN, PSE, SJU, STT."""


@dataclass(frozen=True, slots=True)
class Flight:
    """What the file says about one flight; moments in UTC, delays in minutes (negative: early)."""

    number: str
    """Carrier and flight number: ``UA1545``."""
    carrier: str
    tail: str | None
    """The aircraft's registration; some flights that were cancelled have none."""
    origin: str
    dest: str
    day: str
    """The day on which it was to leave, in New York: ``2013-01-01``."""
    scheduled_departure: datetime
    scheduled_arrival: datetime
    departed: datetime | None
    departure_delay: int | None
    arrived: datetime | None
    arrival_delay: int | None
    """Known for flights that went straight to their destination."""
    diverted: bool

    @property
    def key(self) -> str:
        """What tells the flight from every other one of the year."""
        return f"{self.number}-{self.origin}-{self.day}"

    @property
    def stream(self) -> str:
        """The stream of its events: one for each aircraft and day; for a flight without an aircraft, its own."""
        return f"aircraft-{self.tail}-{self.day}" if self.tail else f"flight-{self.key}"


def parse(row: Row) -> Flight:
    """Make a flight of a row."""
    zone = _zones().get(row.dest, _NOT_LISTED)
    scheduled_departure = datetime.fromisoformat(row.time_hour) + timedelta(minutes=int(row.minute))
    scheduled_arrival = _first_showing(row.sched_arr_time, scheduled_departure, zone)
    departure_delay, arrival_delay = _minutes(row.dep_delay), _minutes(row.arr_delay)
    departed = arrived = None
    if departure_delay is not None:
        departed = scheduled_departure + timedelta(minutes=departure_delay)
        if arrival_delay is not None:
            arrived = scheduled_arrival + timedelta(minutes=arrival_delay)
        elif row.arr_time != MISSING:
            arrived = _first_showing(row.arr_time, departed, zone)
    return Flight(
        number=row.carrier + row.flight,
        carrier=row.carrier,
        tail=None if row.tailnum == MISSING else row.tailnum,
        origin=row.origin,
        dest=row.dest,
        day=f"{row.year}-{int(row.month):02}-{int(row.day):02}",
        scheduled_departure=scheduled_departure,
        scheduled_arrival=scheduled_arrival,
        departed=departed,
        departure_delay=departure_delay,
        arrived=arrived,
        arrival_delay=arrival_delay,
        diverted=departed is not None and row.air_time == MISSING,
    )


def _minutes(field: str) -> int | None:
    return None if field == MISSING else int(field)


def _first_showing(clock: str, after: datetime, zone: str) -> datetime:
    """Return the first moment after ``after`` at which a clock in the zone shows ``clock`` (``hhmm`` up to 2400)."""
    hours, minutes = divmod(int(clock), 100)
    there = after.astimezone(_zone(zone))
    shown = datetime.combine(there.date(), time(hours % 24, minutes), there.tzinfo)
    if shown <= there:
        shown = datetime.combine(there.date() + timedelta(days=1), shown.timetz())
    return shown.astimezone(UTC)


@functools.cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@functools.cache
def _zones() -> dict[str, str]:
    with (folder() / "airports.csv").open(newline="", encoding="utf-8") as file:
        return {airport["faa"]: airport["tzone"] for airport in csv.DictReader(file)}
