"""Making, migrating, checking and removing a schema."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from headwater.storage.errors import ConfigurationError, SchemaMissing, SchemaOutdated, StoreUnavailable
from headwater.storage.model import NewEvent
from headwater.storage.options import StoreOptions
from headwater.storage.postgres import schema
from headwater.storage.postgres.statements import PAYLOAD_TYPES, PayloadType, migrations
from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.events import events


async def run(url: str, statement: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        await conn.execute(statement)


@pytest.mark.parity("T074", "T171")
async def test_migrating_is_done_once(empty_database_url: str) -> None:
    options = StoreOptions(url=empty_database_url)
    assert [row.applied_at for row in await schema.status(options)] == [None] * len(migrations())
    assert [row.number for row in await schema.migrate(options) or []] == [m.number for m in migrations()]
    assert await schema.migrate(options) == []
    assert all(row.applied_at for row in await schema.status(options))


@pytest.mark.parity("T076")
async def test_of_concurrent_migrations_one_does_the_work(empty_database_url: str) -> None:
    options = StoreOptions(url=empty_database_url)
    runs = await asyncio.gather(*[schema.migrate(options) for _ in range(3)])
    assert sorted(len(applied or []) for applied in runs) == [0, 0, len(migrations())]


@pytest.mark.parity("T076")
async def test_a_migration_in_progress_can_be_left_to_itself(empty_database_url: str) -> None:
    options = StoreOptions(url=empty_database_url)
    async with await psycopg.AsyncConnection.connect(empty_database_url) as other:
        await other.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('headwater migrations of \"headwater\"', 0))"
        )
        assert await schema.migrate(options, wait=False) is None
    assert await schema.migrate(options, wait=False)


@pytest.mark.parity("T072")
async def test_a_schema_that_is_behind_is_refused(database_url: str) -> None:
    await run(database_url, 'DELETE FROM "headwater"."migrations" WHERE "number" = 2')
    with pytest.raises(SchemaOutdated, match="subscriptions"):
        await PostgresEventStore.open(database_url)


async def test_a_schema_of_a_newer_program_is_refused(database_url: str) -> None:
    await run(database_url, 'INSERT INTO "headwater"."migrations" VALUES (9999, \'from_the_future\')')
    with pytest.raises(SchemaOutdated, match="from_the_future"):
        await PostgresEventStore.open(database_url)


@pytest.mark.parity("T171", "T172")
async def test_dropping_removes_what_is_there_once(database_url: str) -> None:
    options = StoreOptions(url=database_url)
    assert await schema.drop(options)
    assert not await schema.drop(options)
    with pytest.raises(SchemaMissing):
        await PostgresEventStore.open(options=options)


@pytest.mark.parity("T145", "T146")
async def test_a_database_is_made_and_dropped_once(empty_database_url: str) -> None:
    options = StoreOptions(url=empty_database_url + "_more")
    try:
        assert await schema.create(options)
        assert not await schema.create(options)
        assert len(await schema.init(options)) == len(migrations())
    finally:
        assert await schema.drop(options, database=True)
    assert not await schema.drop(options, database=True)


async def test_a_reset_empties_the_store(database_url: str) -> None:
    async with await PostgresEventStore.open(database_url) as store:
        await store.append("s", events(3))
    await schema.reset(StoreOptions(url=database_url))
    async with await PostgresEventStore.open(database_url) as store:
        assert (await store.append("s", events(1), 0)).first_position == 1


@pytest.mark.parity("T100", "T101", "T116", "T117", "T035")
@pytest.mark.parametrize("other", ["other", "Mixed Case", "ünïcode", "semi;colon", "select", "a.b", "x" * 63])
async def test_stores_in_two_schemas_know_nothing_of_each_other(database_url: str, other: str) -> None:
    async with (
        await PostgresEventStore.open(database_url) as one,
        await PostgresEventStore.open(database_url, schema=other, migrate=True) as two,
    ):
        await one.append("s", events(3), 0)
        await two.append("s", events(1), 0)
        assert (await one.head(), await two.head()) == (3, 1)
        assert len(await two.read("s")) == 1
    await schema.drop(StoreOptions(url=database_url, schema=other))
    async with await PostgresEventStore.open(database_url) as one:
        assert len(await one.read("s")) == 3


@pytest.mark.parametrize("name", ["", "x" * 64, "quo'te", 'quo"te', "per%cent", "dol$$lar", "back\\slash", "nul\0"])
async def test_a_schema_name_that_could_end_a_literal_is_refused(database_url: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match="schema"):
        await PostgresEventStore.open(database_url, schema=name)


class Reversed:
    """A codec whose stored form is no JSON."""

    def encode(self, event_type: str, value: str) -> bytes:
        return value[::-1].encode()

    def decode(self, event_type: str, raw: bytes) -> str:
        return bytes(raw).decode()[::-1]


@pytest.mark.parametrize("payload", PAYLOAD_TYPES)
async def test_payloads_come_back_from_every_kind_of_column(empty_database_url: str, payload: PayloadType) -> None:
    data = {"b": [1, 2.5, "ü"], "a": None}
    async with await PostgresEventStore.open(empty_database_url, payload=payload, migrate=True) as store:
        await store.append("s", [NewEvent("T", data, metadata={"m": 1}), NewEvent("T", 7)])
        first, second = await store.read("s")
        assert (first.data, first.metadata, second.data, second.metadata) == (data, {"m": 1}, 7, None)
    # An opened store finds out by itself what its columns are.
    async with await PostgresEventStore.open(empty_database_url) as store:
        await store.append("s", [NewEvent("T", data)], 2)
        assert (await store.read("s", start=3))[0].data == data


async def test_a_store_may_have_a_codec_of_its_own(empty_database_url: str) -> None:
    async with await PostgresEventStore.open(
        empty_database_url, payload="bytea", migrate=True, codec=Reversed()
    ) as store:
        await store.append("s", [NewEvent("T", "hello", metadata="meta")])  # type: ignore[arg-type]
        [event] = await store.read("s")
        assert (event.data, event.metadata) == ("hello", "meta")
        [paged] = (await store.read_page("s", 0, 10)).events
        assert paged.data == "hello"
        [listed] = await store.read_all()
        assert listed.data == "hello"


@pytest.mark.parametrize("url", ["postgresql://postgres@127.0.0.1:1/nowhere", "postgresql://nobody@/x?host=/nowhere"])
async def test_a_server_that_does_not_answer_is_unavailable(url: str) -> None:
    with pytest.raises(StoreUnavailable):
        await PostgresEventStore.open(url, timeout=0.5)
