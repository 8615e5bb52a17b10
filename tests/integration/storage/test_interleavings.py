"""What others do between two statements of one call: nothing is missed, and nobody gets another's failure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg
import pytest

from headwater.storage.errors import InvalidArgument, StoreUnavailable
from headwater.storage.model import AppendResult, ImportedEvent, NewEvent
from headwater.storage.options import StoreOptions
from headwater.storage.postgres import appending, group, reading, schema
from headwater.storage.postgres.connect import Connection
from headwater.storage.postgres.encoding import Unit
from headwater.storage.postgres.reading import StreamState
from headwater.storage.postgres.statements import Statements
from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.events import events
from tests.plugins.waiting import until

LOCKED = 'SELECT FROM "headwater"."head" FOR UPDATE'
Act = Callable[[], Awaitable[object]]


def around_state(patch: pytest.MonkeyPatch, *, before: Act | None = None, after: Act | None = None) -> None:
    """Act once, before or after the next look at how a stream stands."""
    look = reading.stream_state
    acts = iter([(before, after)])

    async def looked(conn: Connection, sql: Statements, stream: str) -> StreamState | None:
        first, then = next(acts, (None, None))
        if first is not None:
            await first()
        state = await look(conn, sql, stream)
        if then is not None:
            await then()
        return state

    patch.setattr(reading, "stream_state", looked)


async def test_a_page_does_not_pass_over_a_stream_that_gets_its_first_link(
    store: PostgresEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append("s", events(3))
    other = await store.append("other", events(1))
    [linked] = await store.read("other")
    around_state(monkeypatch, after=lambda: store.link("s", [linked]))
    page = await store.read_page("s", 0, 10)
    assert [event.number for event in page.events] == [1, 2, 3, 4]
    assert (page.read_to, page.events[-1].position) == (4, other.first_position)


async def test_a_page_does_not_pass_over_a_stream_that_is_deleted_meanwhile_and_comes_back(
    store: PostgresEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append("s", events(3))
    around_state(monkeypatch, after=lambda: store.delete_stream("s"))
    first = await store.read_page("s", 0, 10)
    await store.undelete_stream("s")
    second = await store.read_page("s", first.read_to, 10)
    assert [event.number for event in (*first.events, *second.events)] == [1, 2, 3]


@pytest.mark.parametrize("backward", [False, True])
async def test_a_stream_that_is_made_while_it_is_read_is_not_empty(
    store: PostgresEventStore, monkeypatch: pytest.MonkeyPatch, backward: bool
) -> None:
    around_state(monkeypatch, before=lambda: store.append("s", events(3)))
    found = await store.read("s", backward=backward)
    assert [(event.stream, event.number) for event in found] == [
        ("s", n) for n in ((3, 2, 1) if backward else (1, 2, 3))
    ]


async def test_a_stream_that_was_emptied_is_empty(database_url: str) -> None:
    async with await PostgresEventStore.open(database_url, hard_deletes=True) as store:
        await store.append("s", events(3))
        await store.truncate_stream("s", 4)
        assert await store.read("s") == await store.read("s", backward=True) == []
        page = await store.read_page("s", 0, 10)
        assert (page.events, page.read_to) == ([], 3)


async def in_one_call(
    store: PostgresEventStore, url: str, appends: Sequence[tuple[str, Sequence[NewEvent]]]
) -> list[AppendResult | BaseException]:
    """Append so that all of it waits for another append, and goes to the server together."""
    async with await psycopg.AsyncConnection.connect(url) as holder:
        await holder.execute(LOCKED)
        tasks = [asyncio.create_task(store.append(*each)) for each in (("first", events(1)), *appends)]
        await until(lambda: f"{len(appends)} queued" in repr(store._group))
        await holder.rollback()
        return (await asyncio.gather(*tasks, return_exceptions=True))[1:]


async def test_an_id_that_another_process_stores_meanwhile_is_no_neighbours_failure(
    store: PostgresEventStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, same = events(1), events(1)
    await store.append("stored", stored)
    async with await PostgresEventStore.open(database_url) as other:
        stored_too_late(monkeypatch, lambda: other.append("same", same))
        outcomes = await in_one_call(store, database_url, [("stored", stored), ("same", same), ("own", events(1))])
    assert [isinstance(each, AppendResult) and each.repeated for each in outcomes] == [True, True, False]
    assert [event.position for event in await store.read("$all")] == [1, 2, 3, 4]


async def test_two_imports_of_the_same_events_write_each_once(
    store: PostgresEventStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = events(3)
    await store.append("s-0", new[:1])
    async with await PostgresEventStore.open(database_url) as other:
        stored_too_late(monkeypatch, lambda: other.append("s-1", new[1:2]))
        imported = await store.import_events([ImportedEvent(f"s-{n}", event) for n, event in enumerate(new)])
    assert imported == 1
    assert [event.id for event in await store.read("$all")] == [event.id for event in new]


def stored_too_late(patch: pytest.MonkeyPatch, act: Act) -> None:
    """Act once, after it was looked which ids are stored and before the rest is sent."""
    settle = appending._settle_stored
    acts = iter([act])

    async def settled(*arguments: Any) -> Any:
        rest = await settle(*arguments)
        for each in acts:
            await each()
        return rest

    patch.setattr(appending, "_settle_stored", settled)


async def test_a_value_that_the_server_cannot_store_is_no_neighbours_failure(empty_database_url: str) -> None:
    options = StoreOptions(url=empty_database_url, payload="jsonb")
    await schema.migrate(options)
    async with await PostgresEventStore.open(options=options) as store:
        values = ["ok", "\0", "ok", "ok", "\0"]
        appends = [(f"s-{n}", [NewEvent("E", {"value": value})]) for n, value in enumerate(values)]
        for repeated in (False, True):
            outcomes = await in_one_call(store, empty_database_url, appends)
            for value, outcome in zip(values, outcomes, strict=True):
                if value == "ok":
                    assert isinstance(outcome, AppendResult)
                    assert outcome.repeated == repeated
                else:
                    assert isinstance(outcome, InvalidArgument)
        with pytest.raises(InvalidArgument):
            await store.append("s", [NewEvent("E", {"value": "\0"})])
        assert [event.position for event in await store.read("$all")] == [1, 2, 3, 4, 5]


async def test_large_payloads_go_in_calls_of_their_own(
    store: PostgresEventStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    send = store._group._send

    async def counted(units: Sequence[Unit]) -> list[appending.Outcome]:
        calls.append(len(units))
        return await send(units)

    monkeypatch.setattr(store._group, "_send", counted)
    monkeypatch.setattr(group, "MAX_PAYLOADS", 5_000)
    sizes = [2_000, 2_000, 2_000, 9_000, 10, 10]
    outcomes = await in_one_call(
        store, database_url, [(f"s-{n}", [NewEvent("E", "x" * size)]) for n, size in enumerate(sizes)]
    )
    assert calls == [1, 2, 1, 1, 2]
    assert all(isinstance(outcome, AppendResult) for outcome in outcomes)
    assert [event.position for event in await store.read("$all")] == [1, 2, 3, 4, 5, 6, 7]


async def test_a_store_whose_closing_was_cancelled_is_closed_all_the_same(database_url: str) -> None:
    store = await PostgresEventStore.open(database_url)
    async with await psycopg.AsyncConnection.connect(database_url) as holder:
        await holder.execute(LOCKED)
        append = asyncio.create_task(store.append("s", events(1)))
        await until(lambda: "1 calls under way" in repr(store._group))
        closing = asyncio.create_task(store.close())
        await until(lambda: store._closed)
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        assert store.pool.closed
        await holder.rollback()
        assert (await append).last_position == 1
    await store.close()


async def test_an_unexplained_violation_ends(store: PostgresEventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing_is_stored(_conn: object, _sql: object, units: Any, _outcomes: object) -> Any:
        return units

    same = events(1)
    await store.append("s", same)
    monkeypatch.setattr(appending, "_settle_stored", nothing_is_stored)
    with pytest.raises(StoreUnavailable):
        await store.append("s", same)
