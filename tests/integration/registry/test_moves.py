"""A move that cannot be done is refused; one that cannot be done any more ends, and its audit says why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from headwater import ClusterOptions, InvalidArgument, SubscriptionConflict
from headwater.cluster.client import Client
from headwater.cluster.directory import SupervisorDirectory
from headwater.cluster.plan import plan
from headwater.storage.postgres.leases import LeaseSession, Presence
from headwater.storage.postgres.placement import PostgresPlacement
from headwater.storage.postgres.repartition import Repartition
from headwater.storage.postgres.replacing import Replacements
from tests.integration.registry.conftest import LONG, Office

ZONE = {"labels": [["zone", "a"]]}


@asynccontextmanager
async def host(office: Office, name: str, **facts: Any) -> AsyncIterator[LeaseSession]:
    """A host that is alive, and does nothing."""
    session = LeaseSession(
        office.store.options, host=name, presence=Presence(node=f"on-{name}", facts=facts), lease=LONG
    )
    await session.open()
    try:
        yield session
    finally:
        await session.close()


class Deployment:
    """An operator, and a supervisor that looks when it is told to."""

    def __init__(self, office: Office, client: Client) -> None:
        self.office = office
        self.client = client
        self.placement = PostgresPlacement(office.store.pool, office.store.sql)
        self.directory = SupervisorDirectory(
            self.placement,
            Repartition(office.store.pool, office.store.sql),
            office.leases,
            Replacements(office.store.pool, office.store.sql),
        )

    async def plan(self) -> None:
        assert await self.directory.supervise()
        hosts = await self.directory.hosts()
        assignments = plan(await self.directory.partitions(), hosts)
        if assignments:
            await self.directory.assign(assignments)
        await self.directory.tidy()

    async def outcome(self, name: str) -> str | None:
        return (await self.client.audit(name))[0].outcome


@pytest.fixture
async def deployment(office: Office) -> AsyncIterator[Deployment]:
    async with await Client.open(ClusterOptions(store=office.store.options)) as client:
        yield Deployment(office, client)


async def register(deployment: Deployment, name: str, options: dict[str, Any]) -> None:
    await deployment.office.registry.register(name, "package.module:handler", options)


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_move_that_cannot_be_done_is_refused_and_nothing_is_asked_for(
    deployment: Deployment, *, dry_run: bool
) -> None:
    client = deployment.client
    for name, options in (
        ("zoned", ZONE),
        ("gpu-1", {"resources": [["GPU", 1.0]]}),
        ("gpu-2", {"resources": [["GPU", 1.0]]}),
    ):
        await register(deployment, name, options)
    await register(deployment, "stopped", {})
    await client.command("stopped", "stop")
    async with (
        host(deployment.office, "a", labels={"zone": "a"}, resources={"GPU": 1.0}),
        host(deployment.office, "b", resources={"GPU": 1.0}),
        host(deployment.office, "c"),
    ):
        await deployment.placement.drain("c")
        await deployment.plan()
        there = {p.key.subscription: p.wanted_owner for p in await deployment.placement.partitions()}
        taken = f"on-{there['gpu-2']}"
        for name, node, why in (
            ("zoned", "on-b", "on-b has not all of label zone=a"),
            ("gpu-1", "on-c", "on-c hands over all that it has"),
            ("gpu-1", taken, f"1 GPU on {taken} is taken by others"),
            ("zoned", "on-d", "no host is alive on a node 'on-d'"),
        ):
            with pytest.raises(InvalidArgument, match=why):
                await client.command(name, "move", {"node": node}, dry_run=dry_run)
            assert await client.audit(name) == []
        with pytest.raises(SubscriptionConflict, match="it is stopped"):
            await client.command("stopped", "move", {"node": "on-a"}, dry_run=dry_run)
        assert await client.command("zoned", "move", {"node": "on-a"}, dry_run=dry_run) == 1


async def test_an_open_move_is_seen_and_ends_when_its_target_goes_away(deployment: Deployment) -> None:
    await register(deployment, "totals", {})
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(host(deployment.office, "a"))
        await deployment.plan()
        async with host(deployment.office, "b"):
            await deployment.client.move("totals", "on-b")
            await deployment.plan()
            assert await deployment.outcome("totals") is None
            assert (await deployment.client.status()).moving["totals/0"].startswith("to on-b since ")
        await deployment.plan()
        outcome = await deployment.outcome("totals")
        assert outcome is not None
        assert outcome.startswith("given up: no host is alive on a node 'on-b'")
        assert (await deployment.client.status()).moving == {}


async def test_an_open_move_ends_when_its_target_cannot_run_it_and_when_it_is_stopped(deployment: Deployment) -> None:
    await register(deployment, "totals", {})
    async with host(deployment.office, "a"), host(deployment.office, "b"):
        await deployment.plan()
        [state] = await deployment.office.registry.states("totals")
        other = "b" if state.wanted_owner == "a" else "a"
        await deployment.client.move("totals", f"on-{other}")
        await deployment.placement.troubles(other, "mark", {str(state.key.lock_id): "it cannot be imported"})
        await deployment.plan()
        assert await deployment.outcome("totals") == f"given up: on on-{other} it cannot be imported"
        await deployment.placement.troubles(other, None, {})
        await deployment.client.move("totals", f"on-{other}")
        await deployment.client.command("totals", "stop")
        generation = await deployment.office.leases.supervise()
        assert generation is not None
        await deployment.placement.end_moves(generation, {})
        moves = [c.outcome for c in await deployment.client.audit("totals") if c.verb == "move"]
        assert moves[0] == "given up: it is stopped"
