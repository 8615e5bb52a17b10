"""A user's observer sees what the owners do, with a handler and in pull mode, and never gets in their way."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from headwater import (
    Client,
    ClusterOptions,
    ConfigurationError,
    ImportPathError,
    NewEvent,
    Observer,
    Status,
    SubscriptionOptions,
    connect,
    pull,
)
from headwater.storage.errors import StreamDeleted
from headwater.storage.leases import PartitionKey
from headwater.storage.options import StoreOptions
from headwater.subscriptions.observer import load_observer
from headwater.subscriptions.testing.runtime import MemoryRuntime
from tests.plugins.waiting import until

from . import watching
from .inside import running

LEASE = timedelta(seconds=30)
"""Longer than any pause of a busy machine."""


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    watching.STATUSES.clear()


@pytest.mark.parity("L30", "L15")
async def test_the_observer_of_an_app_sees_what_its_owners_do_and_cannot_stop_them(database_url: str) -> None:
    options = ClusterOptions(store=StoreOptions(url=database_url), lease=LEASE).of_app(watching.app)
    async with connect(database_url) as store:
        await store.append("orders", [NewEvent("OrderPaid")])
        async with await Client.open(options) as client, running(options):
            await client.register(watching.app)
            # Its checkpoints are saved although the observer raises when it is told of one.
            await client.wait_for("handled", timeout=60)
            await store.delete_stream("orders")
            await until(lambda: watching.STATUSES[-1][1] == "stuck")
            assert "soft-deleted" in (watching.STATUSES[-1][2] or "")
    assert watching.STATUSES[0] == ("handled", "running", None)
    assert watching.STATUSES[-1][1] == "finished"


@pytest.mark.parity("L30", "L15")
async def test_a_program_that_pulls_watches_too_and_learns_why_nothing_comes(database_url: str) -> None:
    class Telling(Observer):
        def status_changed(self, key: PartitionKey, status: Status) -> None:
            told.append(f"{status.phase.value}: {status.reason}")

    told: list[str] = []
    cluster = ClusterOptions(store=StoreOptions(url=database_url), lease=LEASE)
    options = SubscriptionOptions(source="orders", poll_interval=timedelta(milliseconds=20))
    async with connect(database_url) as store, pull("printer", options, cluster=cluster, observer=Telling()) as pulling:
        await store.append("orders", [NewEvent("OrderPaid")])
        taker = pulling.subscriber("a")
        async with asyncio.timeout(30):
            batch = await taker.take()
            assert batch is not None
            await batch.ack()
            assert told == ["running: None"]
            await store.delete_stream("orders")
            with pytest.raises(StreamDeleted):
                await taker.take()
        await until(lambda: told[-1].startswith("finished: "), what="waiting until the lease is let go")


async def test_in_memory_the_observer_of_an_app_watches_too() -> None:
    async with MemoryRuntime(watching.app) as runtime:
        await runtime.append("orders", NewEvent("OrderPaid"))
        await runtime.caught_up()
    assert watching.STATUSES[0] == ("handled", "running", None)


@pytest.mark.parametrize("observer", ["watching", 3])
async def test_what_is_no_observer_is_refused(observer: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not an Observer"):
        async with pull(
            "printer", cluster=ClusterOptions(store=StoreOptions(url="postgresql://nowhere/x")), observer=observer
        ):
            pass


def test_an_observer_that_cannot_be_imported_or_is_none_is_refused() -> None:
    with pytest.raises(ImportPathError):
        load_observer("tests.integration.host.watching:missing")
    with pytest.raises(ConfigurationError, match="is not an Observer but App"):
        load_observer("tests.integration.host.watching:app")
    read = ClusterOptions.read(StoreOptions(url="postgresql://nowhere/x"), {"HEADWATER_OBSERVER": "a:b"})
    assert (read.observer, read.of_app(watching.app).observer) == ("a:b", watching.app.observer)
