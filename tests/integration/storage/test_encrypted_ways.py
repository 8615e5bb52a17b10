"""Every way into the store on Postgres encrypts, and every way out opens."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from headwater import ERASED, ConfigurationError, Encryption, InvalidArgument, KeyUnavailable, NewEvent, connect, sync
from headwater.storage.encryption.cipher import from_environment
from headwater.storage.model import ALL, ImportedEvent
from headwater.storage.postgres.store import PostgresEventStore

SECRET = "Ada Lovelace 12 St James Square"


def registered(name: str = SECRET, subject: str = "ada") -> NewEvent:
    return NewEvent("Registered", {"name": name}, subject=subject)


@pytest.fixture
def encryption(monkeypatch: pytest.MonkeyPatch) -> Encryption:
    monkeypatch.setenv("HEADWATER_MASTER_KEYS", f"first:{base64.b64encode(os.urandom(32)).decode()}")
    return Encryption()


@pytest.fixture
async def store(database_url: str, encryption: Encryption) -> AsyncIterator[PostgresEventStore]:
    # One connection: asking for a key while holding it would wait for ever.
    async with await PostgresEventStore.open(database_url, encryption=encryption, pool_size=1, timeout=10) as opened:
        yield opened


def stored(url: str) -> str:
    with psycopg.connect(url) as conn:
        return repr(conn.execute('SELECT t::text FROM "headwater"."events" AS t').fetchall())


async def names(store: PostgresEventStore) -> list[str]:
    return [event.data["name"] for event in await store.read(ALL)]


async def test_an_import_encrypts_and_may_be_run_again(store: PostgresEventStore, database_url: str) -> None:
    when = datetime(2013, 7, 1, tzinfo=UTC)
    wanted = [ImportedEvent(f"s-{n % 3}", registered(f"{SECRET} {n}", f"customer-{n % 7}"), when) for n in range(1200)]

    async def arriving() -> AsyncIterator[ImportedEvent]:
        for event in wanted:
            yield event

    assert await store.import_events(wanted, batch_size=1000) == 1200
    assert await store.import_events(arriving(), batch_size=1000) == 0
    assert await names(store) == [f"{SECRET} {n}" for n in range(1000)]
    assert SECRET not in stored(database_url)
    for odd in (7, [registered()], [ImportedEvent("s", "no event")]):  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument):
            await store.import_events(odd)  # type: ignore[arg-type]


async def test_an_append_in_a_callers_transaction_and_one_at_its_commit_encrypt(
    store: PostgresEventStore, database_url: str
) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        async with conn.transaction():
            await store.append("a", [registered("in it")], conn=conn)
            assert [event.data for event in await store.read("a", conn=conn)] == [{"name": "in it"}]
            await store.append_at_commit("b", [registered("at its end")], conn=conn)
        async with conn.transaction(force_rollback=True):
            await store.append("a", [registered("never", "bob")], conn=conn)
    assert await names(store) == ["in it", "at its end"]
    assert "in it" not in stored(database_url)


async def test_many_programs_that_meet_a_subject_for_the_first_time_use_one_key(
    database_url: str, encryption: Encryption
) -> None:
    stores = [await PostgresEventStore.open(database_url, encryption=encryption, pool_size=2) for _ in range(4)]
    try:
        await asyncio.gather(
            *(
                each.append(f"s-{n}", [registered(f"{n} {k}", f"customer-{k}") for k in range(20)])
                for n, each in enumerate(stores)
            )
        )
        assert len(await names(stores[0])) == 80
        with psycopg.connect(database_url) as conn:
            assert conn.execute('SELECT count(*) FROM "headwater"."subject_keys"').fetchone() == (20,)
        await stores[0].forget("customer-3")
        erased = [event.data for event in await stores[0].read(ALL) if event.erased]
        assert erased == [ERASED] * 4
    finally:
        for each in stores:
            await each.close()


def test_a_synchronous_program_encrypts_and_forgets(database_url: str, encryption: Encryption) -> None:
    with sync.connect(database_url, encryption=encryption) as store:
        store.append("a", [registered()])
        [event] = store.read("a")
        assert event.data == {"name": SECRET}
        assert store.forget("ada")
        assert event.data is ERASED


async def test_a_store_without_the_encryption_can_forget(store: PostgresEventStore, database_url: str) -> None:
    await store.append("a", [registered()])
    async with connect(database_url) as bare:
        assert await bare.forget("ada")
    async with connect(database_url, encryption=Encryption()) as other:
        assert [event.data for event in await other.read("a")] == [ERASED]


async def test_a_key_row_that_was_tampered_with_opens_nothing(store: PostgresEventStore, database_url: str) -> None:
    await store.append("a", [registered(), registered("bob's", "bob")])
    with psycopg.connect(database_url) as conn:
        # Bob's own key put in the place of another's.
        conn.execute(
            'UPDATE "headwater"."subject_keys" AS "mine" SET "wrapped_key" = "other"."wrapped_key"'
            ' FROM "headwater"."subject_keys" AS "other" WHERE "mine"."subject" = %s AND "other"."subject" = %s',
            ["ada", "bob"],
        )
    async with connect(database_url, encryption=Encryption()) as other:
        first, second = await other.read("a")
        with pytest.raises(KeyUnavailable):
            _ = first.data
        assert second.data == {"name": "bob's"}


@pytest.fixture(params=["", "first", "first:c2hvcnQ=", ":" + "A" * 44, "first:!" + "A" * 43])
def bad_keys(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("HEADWATER_MASTER_KEYS", request.param)
    return request.param  # type: ignore[no-any-return]


def test_master_keys_that_can_never_work_are_refused_without_being_shown(bad_keys: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        from_environment()
    assert not bad_keys or bad_keys not in str(refused.value)


def test_several_master_keys_are_read_the_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = os.urandom(32), os.urandom(32)
    text = ",".join(f"{name}:{base64.b64encode(key).decode()}" for name, key in (("new", second), ("old", first)))
    monkeypatch.setenv("HEADWATER_MASTER_KEYS", text + ", ")
    assert list(from_environment().items()) == [("new", second), ("old", first)]
