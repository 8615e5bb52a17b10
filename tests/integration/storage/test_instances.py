"""Several stores in one process: by schema, by pool, opened and closed as one likes."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from headwater.storage.errors import ConfigurationError, SnapshotNotFound, StoreClosed, StreamExists, StreamNotFound
from headwater.storage.model import ALL, NO_STREAM, Snapshot
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.events import events
from tests.plugins.waiting import until

SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
)


@pytest.mark.parity("T033", "T111", "T112", "T113", "T114", "L12")
async def test_one_store_closes_and_opens_again_while_the_others_go_on(database_url: str) -> None:
    names = ["headwater", "tenant_a", "tenant_b"]
    stores = [await PostgresEventStore.open(database_url, schema=name, migrate=True) for name in names]
    assert [store.options.schema for store in stores] == names
    for number, store in enumerate(stores):
        await store.append("s", events(number + 1))
    for _ in range(3):
        await stores[1].close()
        with pytest.raises(StoreClosed):
            await stores[1].read("s")
        with pytest.raises(StoreClosed):
            await stores[1].append("s", events(1))
        assert await stores[0].head() == 1
        assert await stores[2].head() == 3
        stores[1] = await PostgresEventStore.open(options=stores[1].options)
        assert await stores[1].head() == 2
    for store in stores:
        await store.close()
        await store.close()


@pytest.mark.parity("T034")
async def test_what_names_no_schema_is_refused_before_connecting() -> None:
    for name in ("", 7, "quo'te"):
        with pytest.raises(ConfigurationError):
            await PostgresEventStore.open("postgresql://127.0.0.1:1/nowhere", schema=name)


@pytest.mark.parity("T115")
async def test_a_store_is_set_up_wholly_in_code(database_url: str) -> None:
    options = StoreOptions(url=database_url, schema="in_code", pool_size=2, timeout=5, hard_deletes=True)
    async with await PostgresEventStore.open(options=options, migrate=True) as store:
        await store.append("s", events(1))
        await store.delete_stream("s", hard=True)


@pytest.mark.parity("T035", "T100")
async def test_two_stores_on_one_schema_share_its_events(database_url: str) -> None:
    async with (
        await PostgresEventStore.open(database_url) as one,
        await PostgresEventStore.open(database_url) as two,
        await PostgresEventStore.open(database_url, schema="other", migrate=True) as other,
    ):
        await one.append("s", events(2))
        assert len(await two.read("s")) == 2
        with pytest.raises(StreamNotFound):
            await other.read("s")


@pytest.mark.parity("T102", "T103", "T110", "T127")
@pytest.mark.parametrize("shared", [False, True], ids=["own pools", "shared pool"])
async def test_transient_subscriptions_see_their_own_store_only(database_url: str, shared: bool) -> None:
    async with (
        await PostgresEventStore.open(database_url) as one,
        await PostgresEventStore.open(
            database_url, schema="other", migrate=True, pool=one.pool if shared else None
        ) as two,
        one.subscribe(ALL) as first,
        two.subscribe(ALL) as second,
    ):
        await one.append("s", events(1))
        await two.append("s", events(2))
        assert len(await anext(first)) == 1
        assert len(await anext(second)) == 2
        await two.append("t", events(1))
        assert [event.position for event in await anext(second)] == [3]
        await one.append("u", events(1))
        assert [event.stream for event in await anext(first)] == ["u"]


@pytest.mark.parity("T109", "L5", "L22")
async def test_another_stores_append_is_seen_without_any_hint(database_url: str) -> None:
    async with (
        await PostgresEventStore.open(database_url) as one,
        await PostgresEventStore.open(database_url) as two,
        two.subscribe(ALL) as batches,
    ):
        await one.append("s", events(2))
        async with asyncio.timeout(20):
            assert [event.position for event in await anext(batches)] == [1, 2]


@pytest.mark.parity("T107", "T106", "L7")
async def test_a_transient_subscription_outlives_its_connections(database_url: str) -> None:
    async with await PostgresEventStore.open(database_url) as store, store.subscribe(ALL) as batches:
        await store.append("s", events(1))
        assert len(await anext(batches)) == 1
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
            await conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await store.append("s", events(2))
        seen: list[int] = []
        async with asyncio.timeout(20):
            while len(seen) < 2:
                seen += [event.position for event in await anext(batches)]
        assert seen == [2, 3]


@pytest.mark.parity("T105")
async def test_snapshots_of_two_stores_are_separate(database_url: str) -> None:
    async with (
        await PostgresEventStore.open(database_url) as one,
        await PostgresEventStore.open(database_url, schema="other", migrate=True) as two,
    ):
        await one.record_snapshot(Snapshot("s", 1, "State", "one"))
        with pytest.raises(SnapshotNotFound):
            await two.read_snapshot("s")
        await two.record_snapshot(Snapshot("s", 1, "State", "two"))
        assert ((await one.read_snapshot("s")).data, (await two.read_snapshot("s")).data) == ("one", "two")


@pytest.mark.parity("T126", "T125")
async def test_a_store_on_a_shared_pool_opens_no_connection_of_its_own(database_url: str) -> None:
    async with (
        await PostgresEventStore.open(database_url, pool_size=2) as one,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as watch,
    ):
        async with await PostgresEventStore.open(database_url, schema="other", migrate=True, pool=one.pool) as two:
            results = await asyncio.gather(*(store.append("s", events(1)) for store in (one, two) * 10))
            assert len(results) == 20

            async def no_more_than_its_own() -> bool:
                # What opening the second store needed is closed; the server ends it when it comes to it.
                row = await (await watch.execute(SESSIONS)).fetchone()
                return row is not None and row[0] <= 3

            await until(no_more_than_its_own)
        assert len(await one.read("s")) == 10


@pytest.mark.parity("T137", "T181")
async def test_a_stream_that_vanishes_during_an_append_is_made_anew(database_url: str) -> None:
    async with await PostgresEventStore.open(database_url, hard_deletes=True) as store:
        await store.append("s", events(1))
        async with await psycopg.AsyncConnection.connect(database_url) as conn:
            await store.delete_stream("s", hard=True, conn=conn)
            waiting = asyncio.create_task(store.append("s", events(1), NO_STREAM))
            await asyncio.sleep(0)
            await conn.commit()
        assert (await waiting).first_version == 1
        with pytest.raises(StreamExists):
            await store.append("s", events(1), NO_STREAM)


@pytest.mark.parity("T233")
async def test_times_are_told_in_utc_whatever_the_servers_zone(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        name = conn.info.dbname
        await conn.execute(f"ALTER DATABASE {name} SET timezone = 'America/New_York'".encode())
    async with await PostgresEventStore.open(database_url) as store:
        await store.append("s", events(1))
        [event] = await store.read("s")
        offset = event.created_at.utcoffset()
        assert offset is not None
        assert not offset
