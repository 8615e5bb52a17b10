"""A subscription that is stopped is run by nobody until it is resumed, and nothing of it is lost meanwhile."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headwater import Client, ClusterOptions, NewEvent, PartitionStatus, SubscriptionNotFound, connect
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.registry import Registry
from headwater.storage.postgres.store import PostgresEventStore
from tests.plugins.waiting import until

from . import watching
from .inside import running


@pytest.fixture
def options(database_url: str) -> ClusterOptions:
    # A lease longer than any pause of a busy machine.
    return ClusterOptions(store=StoreOptions(url=database_url), lease=timedelta(seconds=30))


async def status(client: Client, name: str = "handled") -> PartitionStatus:
    [found] = await client.partitions(name)
    return found


async def test_it_is_run_by_nobody_until_it_is_resumed_also_by_a_new_owner(options: ClusterOptions) -> None:
    async with await Client.open(options) as client, connect(options.store.url) as store:
        await client.register(watching.app)

        async def is_stopped() -> bool:
            found = await status(client)
            return (found.phase, found.node) == ("stopped", None)

        async with running(options):
            await store.append("orders", [NewEvent("OrderPaid")])
            await client.wait_for("handled", timeout=60)
            await client.stop("handled", dry_run=True)
            assert [each.verb for each in await client.audit("handled")] == []
            await client.stop("handled", reason="a bill is due")
            await until(is_stopped)
            assert ((await status(client)).reason or "").endswith(": a bill is due")
        last = await store.append("orders", [NewEvent("OrderPaid")])
        async with running(options):
            await client.register(watching.app)
            assert await is_stopped(), "an app that declares it leaves it so"
            assert (await status(client)).checkpoint == 1
            await client.resume("handled")
            await client.wait_for("handled", last.last_position, timeout=60)
        assert (await status(client)).checkpoint == 2
        assert {each.verb for each in await client.audit("handled")} >= {"stop", "resume"}
        with pytest.raises(SubscriptionNotFound):
            await client.stop("nobody")


async def test_one_whose_handler_is_gone_says_what_can_be_done_and_can_be_stopped(options: ClusterOptions) -> None:
    async with (
        await Client.open(options) as client,
        await PostgresEventStore.open(options=options.store) as store,
        running(options),
    ):
        await Registry(store.pool, store.sql, store).register("gone", "tests.integration.host.watching:gone", {})

        async def is_stuck() -> bool:
            return (await status(client, "gone")).phase == "stuck"

        await until(is_stuck)
        reason = (await status(client, "gone")).reason or ""
        assert "cannot import" in reason
        assert reason.endswith("if no app has it any more: headwater stop (or delete) gone")
        await client.stop("gone")

        async def is_stopped() -> bool:
            found = await status(client, "gone")
            return (found.phase, found.node) == ("stopped", None)

        await until(is_stopped)
