"""The read models' handlers on a real database, against the figures of the raw rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import orjson
import psycopg
import pytest

from examples.flights import readmodels, traces
from examples.flights.check import check
from examples.flights.compare import Comparison
from examples.flights.events import CANCELLED, DIVERTED, SCHEDULED, in_order, new_event
from examples.flights.expected import expect
from examples.flights.flight import parse
from examples.flights.source import rows
from examples.flights.statements import TABLES
from headwater import Context, RecordedEvent

FLIGHTS = 600
BATCH = 50


@pytest.fixture(scope="module")
def events() -> list[RecordedEvent]:
    recorded = []
    for position, happening in enumerate(in_order(parse(row) for row in rows(FLIGHTS, seed=7)), start=1):
        new, stream, now = new_event(happening), happening.flight.stream, datetime.now(UTC)
        row = (position, stream, 1, position, new.id, new.type, orjson.dumps(new.data), None, None, None, now, None, 1)
        recorded.append(RecordedEvent(*row))
    return recorded


@pytest.fixture
def tables(empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(traces.FOLDER, str(tmp_path))
    monkeypatch.setenv("HEADWATER_DATABASE_URL", empty_database_url)
    with psycopg.connect(empty_database_url) as conn:
        conn.execute(TABLES)
    return empty_database_url


def context(subscription: str, transaction: object = None) -> Context:
    return Context(
        subscription=subscription,
        partition=0,
        epoch=1,
        attempt=1,
        replaying=False,
        consumer=0,
        transaction=transaction,
    )


def batches(events: list[RecordedEvent]) -> Iterator[list[RecordedEvent]]:
    for start in range(0, len(events), BATCH):
        yield events[start : start + BATCH]


async def handle_all(database_url: str, events: list[RecordedEvent], *, again: bool = False) -> None:
    """Hand all events to all handlers; ``again`` hands each batch for ``airports`` and each alert over twice."""
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        for batch in batches(events):
            await readmodels.delay_statistics(batch, context("delay-statistics", conn))
        for batch in batches([event for event in events if event.type == DIVERTED]):
            await readmodels.diversions(batch, context("diversions", conn))
    airports = readmodels.Airports()
    await airports.start()
    for batch in batches([event for event in events if event.type != SCHEDULED]):
        for _ in range(2 if again else 1):
            await airports.handle(batch, context("airports"))
    await airports.stop()
    for event in events:
        if event.type == CANCELLED:
            for _ in range(2 if again else 1):
                readmodels.cancellations(event, context("cancellations"))


async def compared(database_url: str, folder: Path) -> dict[str, Comparison]:
    found = await check(database_url, folder, expect(rows(FLIGHTS, seed=7)))
    return {comparison.read_model: comparison for comparison in found}


async def test_every_read_model_shows_the_figures_of_the_raw_rows(tables, events, tmp_path):
    await handle_all(tables, events)
    found = await compared(tables, tmp_path)
    assert found.keys() == {"delay-statistics", "airports", "cancellations", "diversions"}
    assert [comparison.differences for comparison in found.values()] == [()] * 4
    assert all(comparison.right and comparison.compared for comparison in found.values())


async def test_repeats_are_turned_away_by_airports_and_counted_in_the_alerts(tables, events, tmp_path):
    await handle_all(tables, events, again=True)
    found = await compared(tables, tmp_path)
    assert found["airports"].right
    assert found["airports"].turned_away == sum(event.type != SCHEDULED for event in events)
    assert found["cancellations"].right
    assert found["cancellations"].repeated == sum(event.type == CANCELLED for event in events)


async def test_a_batch_that_never_came_is_counted_as_lost(tables, events, tmp_path):
    await handle_all(tables, events[BATCH:])
    assert (await compared(tables, tmp_path))["delay-statistics"].lost == BATCH


async def test_a_batch_that_was_counted_twice_is_counted_as_repeated(tables, events, tmp_path):
    await handle_all(tables, events)
    async with await psycopg.AsyncConnection.connect(tables) as conn:
        await readmodels.delay_statistics(events[:BATCH], context("delay-statistics", conn))
    found = (await compared(tables, tmp_path))["delay-statistics"]
    assert found.repeated == BATCH
    assert not found.right
