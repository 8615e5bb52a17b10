"""The file's local clock times become moments."""

from __future__ import annotations

from datetime import UTC, datetime

from examples.flights.flight import Flight, parse
from examples.flights.source import Row


def flight(line: str) -> Flight:
    return parse(Row._make(line.split(",")))


def test_a_flight_has_its_times_in_utc_across_two_time_zones():
    found = flight("2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z")
    assert found.scheduled_departure == datetime(2013, 1, 1, 10, 15, tzinfo=UTC)
    assert found.departed == datetime(2013, 1, 1, 10, 17, tzinfo=UTC)
    assert found.scheduled_arrival == datetime(2013, 1, 1, 14, 19, tzinfo=UTC)
    assert found.arrived == datetime(2013, 1, 1, 14, 30, tzinfo=UTC)
    assert not found.diverted


def test_a_delay_past_midnight_leaves_on_the_next_day():
    found = flight("2013,1,2,2,2245,77,104,2357,67,EV,4333,N18557,EWR,TUL,199,1215,22,45,2013-01-03T03:00:00Z")
    assert found.departed == datetime(2013, 1, 3, 5, 2, tzinfo=UTC)
    assert found.day == "2013-01-02"


def test_an_arrival_after_midnight_is_on_the_next_day_of_the_destination():
    found = flight("2013,1,1,2353,2359,-6,425,445,-20,B6,739,N591JB,JFK,PSE,195,1617,23,59,2013-01-02T04:00:00Z")
    assert found.scheduled_arrival == datetime(2013, 1, 2, 8, 45, tzinfo=UTC)
    assert found.arrived == datetime(2013, 1, 2, 8, 25, tzinfo=UTC)


def test_a_flight_without_departure_was_cancelled_and_may_have_no_aircraft():
    found = flight("2013,1,2,NA,1545,NA,NA,1910,NA,AA,133,NA,JFK,LAX,NA,2475,15,45,2013-01-02T20:00:00Z")
    assert found.departed is None
    assert found.arrived is None
    assert not found.diverted
    assert found.stream == "flight-AA133-JFK-2013-01-02"


def test_a_diverted_flight_that_got_there_in_the_end_has_an_arrival_without_a_delay():
    found = flight("2013,1,1,1525,1530,-5,1934,1805,NA,MQ,4525,N719MQ,LGA,XNA,NA,1147,15,30,2013-01-01T20:00:00Z")
    assert found.diverted
    assert found.arrived == datetime(2013, 1, 2, 1, 34, tzinfo=UTC)
    assert found.arrival_delay is None


def test_midnight_written_as_2400_is_the_next_days_first_moment():
    found = flight("2013,1,18,2359,2359,0,2400,2400,0,B6,1,N1,JFK,BOS,30,187,23,59,2013-01-19T04:00:00Z")
    assert found.scheduled_arrival == datetime(2013, 1, 19, 5, 0, tzinfo=UTC)
