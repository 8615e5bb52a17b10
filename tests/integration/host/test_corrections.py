"""What handlers get in place of an encrypted payload is encrypted, too, and is erased with the subject."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from headwater import (
    ERASED,
    App,
    ConfigurationError,
    EncodingFailed,
    Encryption,
    InvalidArgument,
    KeyUnavailable,
    NewEvent,
    RecordedEvent,
    RetryPolicy,
)
from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions
from headwater.cluster.running import NoNodes
from headwater.cluster.wiring import open_host, open_supervisor
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.waiting import until

WRONG, RIGHT = "Ada Lovelacce", "Ada Lovelace"

encryption = Encryption(metadata=True)
app = App("customers", encryption=f"{__name__}:encryption")
GREETED: list[object] = []


@app.subscription("greetings", retry=RetryPolicy(attempts=1), poll_interval=timedelta(milliseconds=20))
def greet(event: RecordedEvent) -> None:
    if not event.erased and event.data["name"] == WRONG:
        raise ValueError("a typing error")
    GREETED.append((event.position, event.data, event.metadata))


@pytest.fixture(autouse=True)
def old_master_key(monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment's only master key."""
    key = f"old:{base64.b64encode(os.urandom(32)).decode()}"
    monkeypatch.setenv("HEADWATER_MASTER_KEYS", key)
    return key


@pytest.fixture(params=["json", "jsonb", "bytea"])
async def options(request: pytest.FixtureRequest, empty_database_url: str) -> StoreOptions:
    """A store with two events whose payloads have a typing error, of which only the second one has no subject."""
    GREETED.clear()
    options = StoreOptions(url=empty_database_url, payload=request.param, encryption=f"{__name__}:encryption")
    async with await PostgresEventStore.open(options=options, migrate=True) as store:
        for subject in ("ada", None):
            await store.append("guest-1", [NewEvent("Registered", {"name": WRONG}, {"by": "desk"}, subject=subject)])
    return options


@asynccontextmanager
async def running(options: StoreOptions) -> AsyncIterator[Client]:
    """Run the app in this process; gives an operator's client."""
    # A long lease: whoever lost it by being kept waiting would greet some once more.
    cluster = ClusterOptions(store=options, lease=timedelta(seconds=30))
    async with (
        await Client.open(cluster) as client,
        open_host(cluster, "here", {}) as host,
        open_supervisor(cluster, NoNodes()) as supervisor,
    ):
        await client.register(app)
        tasks = [asyncio.create_task(host.run()), asyncio.create_task(supervisor.run())]
        try:
            yield client
            await host.drain()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)  # all of them: what they use is closed next
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    task.result()


async def parked(client: Client, *positions: int) -> None:
    """Wait until these events are set aside, and no others."""

    async def are_there() -> bool:
        return [each.position for each in await client.parked("greetings")] == list(positions)

    await until(are_there, what=f"waiting until {positions} are parked")


def kept(options: StoreOptions) -> str:
    """Return everything that is kept of parked events, and of what became of them."""
    with psycopg.connect(options.url) as conn:
        query = (
            'SELECT (SELECT array_agg("p"::text) FROM "headwater"."parked_events" AS "p"),'
            ' (SELECT array_agg("e"::text) FROM "headwater"."parked_edits" AS "e"),'
            ' (SELECT array_agg("c"::text) FROM "headwater"."commands" AS "c")'
        )
        return repr(conn.execute(query).fetchone())


async def test_a_correction_is_kept_as_its_event_is_and_is_what_the_handler_gets(options: StoreOptions) -> None:
    async with running(options) as client:
        await parked(client, 1, 2)
        await client.edit_parked("greetings", 1, {"name": RIGHT}, reason="a slip")
        assert (WRONG in kept(options), RIGHT in kept(options)) == (False, False)
        shown = await client.parked_event("greetings", 1)
        assert (shown.data, shown.metadata) == ({"name": WRONG}, {"by": "desk"})
        assert [(e.before, e.after) for e in shown.edits] == [({"name": WRONG}, {"name": RIGHT})]
        await client.edit_parked("greetings", 2, {"name": "somebody"})
        assert "somebody" in kept(options), "the event itself is in the clear"
        assert [(e.before, e.after) for e in (await client.parked_event("greetings", 2)).edits] == [
            ({"name": WRONG}, {"name": "somebody"})
        ]
        await client.retry_parked("greetings")
        await parked(client)
        assert GREETED == [(1, {"name": RIGHT}, {"by": "desk"}), (2, {"name": "somebody"}, {"by": "desk"})]
        audit = await client.audit("greetings")
        assert [(each.verb, each.edit and (each.edit.reason, each.edit.before, each.edit.after)) for each in audit] == [
            ("retry parked", None),
            ("edit parked", ("", {"name": WRONG}, {"name": "somebody"})),
            ("edit parked", ("a slip", {"name": WRONG}, {"name": RIGHT})),
        ]


async def test_whoever_is_forgotten_is_erased_from_corrections_too(options: StoreOptions) -> None:
    async with running(options) as client:
        await parked(client, 1, 2)
        await client.edit_parked("greetings", 1, {"name": RIGHT})
        await client.discard_parked("greetings")
    async with await PostgresEventStore.open(options=options) as store:
        await store.append("guest-2", [NewEvent("Registered", {"name": WRONG}, subject="ada")])
    async with running(options) as client:
        await parked(client, 3)
        await client.edit_parked("greetings", 3, {"name": RIGHT})
        async with await PostgresEventStore.open(options=options) as store:
            assert await store.forget("ada")
        shown = await client.parked_event("greetings", 3)
        assert (shown.data, shown.edits[0].before, shown.edits[0].after) == (ERASED, ERASED, ERASED)
        [edited] = await client.audit("greetings", limit=1)
        assert edited.edit is not None
        assert (edited.edit.before, edited.edit.after) == (ERASED, ERASED)
        with pytest.raises(KeyUnavailable, match="destroyed"):
            await client.edit_parked("greetings", 3, {"name": "Ada again"})
    # Another process: this one may have used the key for a moment longer.
    async with running(options) as client:
        await client.retry_parked("greetings")
        await parked(client)
        assert GREETED == [(3, ERASED, None)]
    assert RIGHT not in kept(options)


async def test_a_correction_needs_the_encryption_of_an_encrypted_event_only(options: StoreOptions) -> None:
    async with running(options) as client:
        await parked(client, 1, 2)
        await client.edit_parked("greetings", 1, {"name": RIGHT})
    async with await Client.open(ClusterOptions(store=replace(options, encryption=None))) as client:
        with pytest.raises(ConfigurationError, match="HEADWATER_ENCRYPTION"):
            await client.edit_parked("greetings", 1, {"name": "in the clear"})
        shown = await client.parked_event("greetings", 1)
        assert list(shown.edits[0].after) == ["$sealed"]
        assert WRONG not in str(shown.data)
    elsewhere = replace(options, encryption="no_such_module:encryption", types="no_such_module:types")
    async with await Client.open(ClusterOptions(store=elsewhere)) as client:
        await client.edit_parked("greetings", 2, {"name": "somebody"})
        assert (await client.parked_event("greetings", 2)).edits[0].after == {"name": "somebody"}
        for position, data, refused in (
            (2, object(), EncodingFailed),
            (2, {"n": float("nan")}, EncodingFailed),
            (9, {}, InvalidArgument),
        ):
            with pytest.raises(refused):
                await client.edit_parked("greetings", position, data)


async def test_a_correction_stays_readable_when_the_master_key_is_exchanged(
    options: StoreOptions, old_master_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(options) as client:
        await parked(client, 1, 2)
        await client.edit_parked("greetings", 1, {"name": RIGHT})
    new_master_key = f"new:{base64.b64encode(os.urandom(32)).decode()}"
    monkeypatch.setenv("HEADWATER_MASTER_KEYS", f"{new_master_key},{old_master_key}")
    async with await PostgresEventStore.open(options=options) as store:
        await store.payloads.rewrap_keys()
    monkeypatch.setenv("HEADWATER_MASTER_KEYS", new_master_key)
    async with await Client.open(ClusterOptions(store=options)) as client:
        assert (await client.parked_event("greetings", 1)).edits[0].after == {"name": RIGHT}
