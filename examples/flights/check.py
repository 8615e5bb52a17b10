"""Read what the read models show at the end, and compare it with the input.

Reads only; the verdicts are made in ``compare``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection

from examples.flights import traces
from examples.flights.compare import Comparison, compare_figures, compare_lists
from examples.flights.expected import AIRPORT_FIGURES, DELAY_FIGURES, Expected
from examples.flights.statements import SQL


async def check(database_url: str, folder: Path, expected: Expected) -> list[Comparison]:
    """Compare every read model with what the input says it must show."""
    async with await AsyncConnection.connect(database_url) as conn:
        delays = await _rows(conn, "read_delays")
        airports = await _rows(conn, "read_airports")
        [[turned_away]] = await _rows(conn, "count_turned_away")
        diversions = await _rows(conn, "read_diversions")
    return [
        compare_figures(
            "delay-statistics",
            "exactly once",
            expected.delays,
            {f"{carrier} {month}": _figures(DELAY_FIGURES, rest) for carrier, month, *rest in delays},
            sums=("departure_minutes", "arrival_minutes"),
        ),
        compare_figures(
            "airports",
            "at least once",
            expected.airports,
            {airport: _figures(AIRPORT_FIGURES, rest) for airport, *rest in airports},
            turned_away=turned_away,
        ),
        compare_lists(
            "cancellations",
            "at least once",
            expected.cancellations,
            (line["flight"] for line in traces.read(folder, traces.ALERTS)),
            repeats_allowed=True,
        ),
        compare_lists("diversions", "exactly once", expected.diversions, (flight for (flight,) in diversions)),
    ]


async def _rows(conn: AsyncConnection[Any], statement: str) -> list[Any]:
    return await (await conn.execute(SQL[statement])).fetchall()


def _figures(names: Iterable[str], values: Iterable[int]) -> dict[str, int]:
    return dict(zip(names, values, strict=True))
