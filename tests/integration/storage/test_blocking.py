"""The store without await: the same results, from any number of threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from headwater import sync
from headwater.storage.errors import SchemaMissing, StoreClosed, WrongExpectedVersion
from headwater.storage.model import ALL, Filter, Snapshot, StreamAppend
from tests.plugins.events import events
from tests.plugins.waiting import wait_until


def test_every_call_does_what_its_asynchronous_twin_does(database_url: str) -> None:
    with sync.connect(database_url, hard_deletes=True) as store:
        assert store.append("order-1", events(3)).last_version == 3
        assert len(store.append_to_many([StreamAppend("a", events(1)), StreamAppend("b", events(1))])) == 2
        with pytest.raises(WrongExpectedVersion):
            store.append("order-1", events(1), 7)
        assert store.link("linked", [event.id for event in store.read("order-1")]) == 3
        assert [event.number for event in store.stream("linked", page_size=2)] == [1, 2, 3]
        assert [event.position for event in store.stream_all(backward=True, page_size=2)] == [5, 4, 3, 2, 1]
        assert len(store.read_all(where=Filter(streams=("a", "b")))) == 2
        assert store.read_page(ALL, 2, 10).read_to == store.head() == 5
        assert store.position_at(store.read("a")[0].created_at) <= 3
        assert store.stream_info("order-1").version == 3
        assert store.list_streams(search="order").entries[0].name == "order-1"
        store.record_snapshot(Snapshot("order-1", 3, "Order", {"total": 1}))
        assert store.read_snapshot("order-1").data == {"total": 1}
        assert store.delete_snapshots("order-1") == 1
        store.delete_stream("a")
        store.undelete_stream("a")
        assert store.truncate_stream("order-1", 3) == 2
        assert [event.version for event in store.read("order-1")] == [3]


def test_threads_share_a_store(database_url: str) -> None:
    with sync.connect(database_url) as store, ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda n: store.append(f"s-{n % 5}", events(2)), range(60)))
        assert sorted(result.first_position for result in results) == list(range(1, 121, 2))


def test_a_transient_subscription_yields_batches(database_url: str) -> None:
    with sync.connect(database_url) as store:
        store.append("s", events(1))
        with store.subscribe("s", mapper=lambda event: event.data["n"]) as batches:
            store.append("s", events(2))
            assert list(next(batches)) == [1, 2]


def test_nothing_is_left_of_a_closed_store(database_url: str, empty_database_url: str) -> None:
    store = sync.connect(database_url)
    store.close()
    store.close()
    with pytest.raises(StoreClosed):
        store.head()
    with pytest.raises(SchemaMissing):
        sync.connect(empty_database_url)
    assert not [thread for thread in threading.enumerate() if thread.name == "headwater-sync"]


def test_a_call_that_is_under_way_when_the_store_is_closed_says_so(database_url: str) -> None:
    with (
        sync.connect(database_url) as store,
        ThreadPoolExecutor(1) as threads,
        psycopg.connect(database_url, autocommit=True) as watch,
        psycopg.connect(database_url) as holder,
    ):
        store.append("s", events(1))
        holder.execute('LOCK TABLE "headwater"."events"')
        reading = threads.submit(store.read, "s")
        wait_until(lambda: watch.execute(WAITING).fetchone() == (1,))
        store.close()
        assert isinstance(reading.exception(), StoreClosed)


WAITING = """
SELECT count(*) FROM pg_locks JOIN pg_database ON "database" = pg_database."oid"
WHERE "datname" = current_database() AND NOT "granted"
"""


def test_a_call_that_comes_while_the_store_is_being_closed_is_answered(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = sync.connect(database_url)
    submit = asyncio.run_coroutine_threadsafe
    closing = threading.Thread(target=store.close)

    def submit_late(work: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> Future[Any]:
        if threading.current_thread() is not closing and closing.ident is None:
            closing.start()
            wait_until(lambda: not closing.is_alive() or store._thread._entering.locked())
        return submit(work, loop)

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", submit_late)
    with suppress(StoreClosed):
        assert store.head() == 0
    closing.join()
