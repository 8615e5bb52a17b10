"""Types and encryption on hosts: every process finds them by their import paths, and asks for keys itself."""

from __future__ import annotations

import base64
import os
from dataclasses import replace

import psycopg
import pytest

from headwater import ERASED, App, ImportPathError, NewEvent, RecordedEvent, SubscriptionOptions, connect
from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions
from headwater.cluster.packing import pack, unpack
from headwater.cluster.wiring import remote_consumer, remote_opener
from headwater.storage.leases import Grant, PartitionKey, Progress
from headwater.storage.options import StoreOptions
from headwater.storage.pages import StoredReader
from headwater.storage.postgres.store import PostgresEventStore
from headwater.subscriptions.ports import Delivered
from tests.integration.host import personal
from tests.integration.host.conftest import Processes
from tests.plugins.waiting import until

PERSONAL = "tests.integration.host.personal"
SEEN: list[object] = []


def see(event: RecordedEvent) -> None:
    SEEN.append(event.object)


@pytest.fixture(autouse=True)
def master_keys(monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment's master keys."""
    keys = f"first:{base64.b64encode(os.urandom(32)).decode()}"
    monkeypatch.setenv("HEADWATER_MASTER_KEYS", keys)
    return keys


def old(name: str) -> NewEvent:
    return NewEvent("Registered", {"name": name}, subject=name)


@pytest.mark.parity("L35")
async def test_the_handlers_of_a_running_app_get_objects_and_nothing_of_whom_was_forgotten(
    database_url: str, processes: Processes, master_keys: str
) -> None:
    with psycopg.connect(database_url) as conn:
        conn.execute('CREATE TABLE "seen" ("subscription" text, "position" bigint, "saw" text, "process" int)')
    options = ClusterOptions(store=StoreOptions(url=database_url))
    async with (
        connect(database_url, types=personal.types, encryption=personal.encryption) as store,
        await Client.open(options) as client,
    ):
        new = NewEvent(data=personal.Registered("bob", "SE"), subject="bob")
        await store.append("customers", [old("ada"), new, old("carol")])
        await store.forget("carol")
        # A store's options say where it is; what its events are, the app says.
        processes.start("a", app="personal:app", environment={"HEADWATER_MASTER_KEYS": master_keys})

        async def caught_up() -> bool:
            partitions = await client.partitions()
            return len(partitions) == 2 and all(p.checkpoint >= 3 for p in partitions)

        await until(caught_up, what="waiting until both subscriptions are at the head")
        processes.end("a")
    query = 'SELECT "saw" FROM "seen" WHERE "subscription" = %s ORDER BY "position"'
    with psycopg.connect(database_url) as conn:
        for subscription in ("exact", "pool"):
            saw = [row[0] for row in conn.execute(query, [subscription]).fetchall()]
            assert saw == [
                "Registered(name='ada', country='NO')",
                "Registered(name='bob', country='SE')",
                "ERASED",
            ], subscription


@pytest.mark.parity("L35")
async def test_a_handler_actor_opens_what_was_sent_to_it_sealed(database_url: str) -> None:
    SEEN.clear()
    where = StoreOptions(url=database_url, types=f"{PERSONAL}:types", encryption=f"{PERSONAL}:encryption")
    async with await PostgresEventStore.open(options=where) as store:
        await store.append("customers", [old("ada"), old("bob")])
        page = await StoredReader(store).read_page("customers", 0, 10)
        opened = await store.payloads.open(page.events)
        await store.forget("bob")
        grant = Grant(PartitionKey("customers", 0, 0), 1, "host", 1, Progress(0))
        packed = pack(Delivered(1, opened, 1, grant))
        assert b"ada" not in packed
        # What follows is done in the actor's process, which has no store.
        consumer = remote_consumer(
            f"{__name__}:see", SubscriptionOptions(), 0, remote_opener(ClusterOptions(store=where))
        )
        await consumer.handle(unpack(packed))
        await consumer.close()
    assert [personal.Registered("ada", "NO"), ERASED] == SEEN


async def test_whoever_never_looks_into_a_payload_needs_none_of_the_users_code(database_url: str) -> None:
    where = StoreOptions(url=database_url, types="no_such_module:types")
    options = ClusterOptions(store=where)
    async with await Client.open(options) as client:
        assert (await client.status()).head == 0
    assert options.supervisor_store.types is None
    with pytest.raises(ImportPathError, match="no_such_module"):
        await PostgresEventStore.open(options=where)
    with pytest.raises(ImportPathError, match="no_such_module"):
        remote_opener(options)
    assert remote_opener(ClusterOptions(store=replace(where, types=None))) is None


def test_what_an_app_says_about_payloads_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_TYPES", "environment:types")
    monkeypatch.setenv("HEADWATER_CODEC", "environment:codec")
    app = App("shop", database_url="postgresql://nowhere/shop", types="shop:types")
    assert (app.store_options.types, app.store_options.codec) == ("shop:types", "environment:codec")
    other = StoreOptions.read("postgresql://nowhere/other?types=evil:code")
    assert other.types == "environment:types", "a URL never says what to import"
    assert app.with_payloads(other).types == "shop:types"
