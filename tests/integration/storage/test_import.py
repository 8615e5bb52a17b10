"""Bulk imports: in order, with their own times, resumable."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headwater.storage.errors import DuplicateEvent, InvalidArgument, ReservedStream, StreamDeleted
from headwater.storage.model import ALL, ImportedEvent, NewEvent
from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.events import events

BEGIN = datetime(2013, 1, 1, tzinfo=UTC)


def history(number: int, streams: int = 7) -> list[ImportedEvent]:
    """Return events of several streams, interleaved, a minute apart."""
    return [
        ImportedEvent(
            f"flight-{n % streams}", NewEvent("Departed", {"n": n}, tags=("UA",)), BEGIN + timedelta(minutes=n)
        )
        for n in range(number)
    ]


async def test_an_import_keeps_order_times_and_streams(store: PostgresEventStore) -> None:
    await store.append("flight-3", events(2), created_at=BEGIN - timedelta(days=1))
    imported = history(100)
    assert await store.import_events(imported, batch_size=33) == 100
    stored = (await store.read_all())[2:]
    assert [event.id for event in stored] == [each.event.id for each in imported]
    assert [event.created_at for event in stored] == [each.created_at for each in imported]
    assert [event.position for event in stored] == list(range(3, 103))
    assert [event.version for event in stored if event.stream == "flight-3"] == list(range(3, 17))
    assert (await store.stream_info("flight-5")).created_at == BEGIN + timedelta(minutes=5)
    assert await store.position_at(BEGIN + timedelta(minutes=50)) == 52
    await store.append("after", events(1))
    assert (await store.read("after"))[0].created_at > BEGIN + timedelta(days=365)


async def test_an_interrupted_import_is_run_again(store: PostgresEventStore) -> None:
    imported = history(100)

    async def broken() -> AsyncIterator[ImportedEvent]:
        for number, each in enumerate(imported):
            if number == 70:
                raise ConnectionAbortedError
            yield each

    with pytest.raises(ConnectionAbortedError):
        await store.import_events(broken(), batch_size=20)
    there = await store.head()
    assert await store.import_events(imported, batch_size=20) == 100 - there
    assert [event.id for event in await store.read_all()] == [each.event.id for each in imported]


async def test_what_cannot_be_imported_is_named(store: PostgresEventStore) -> None:
    bad: list[tuple[Any, type[Exception]]] = [
        (NewEvent("T"), InvalidArgument),
        (ImportedEvent("s", 7), InvalidArgument),  # type: ignore[arg-type]
        (ImportedEvent("", NewEvent("T")), InvalidArgument),
        (ImportedEvent(ALL, NewEvent("T")), ReservedStream),
        (ImportedEvent("s", NewEvent("T"), datetime.fromisoformat("2013-01-01")), InvalidArgument),
    ]
    for value, error in bad:
        with pytest.raises(error):
            await store.import_events([value])
    event = NewEvent("T")
    with pytest.raises(DuplicateEvent):
        await store.import_events([ImportedEvent("s", event), ImportedEvent("t", event)])
    assert await store.import_events([]) == 0
    await store.append("gone", events(1))
    await store.delete_stream("gone")
    with pytest.raises(StreamDeleted):
        await store.import_events([ImportedEvent("gone", NewEvent("T"))])
    assert await store.head() == 1


@pytest.mark.slow
async def test_a_large_import_goes_through(store: PostgresEventStore) -> None:
    assert await store.import_events(iter(history(30_000, streams=500))) == 30_000
    assert await store.head() == 30_000
