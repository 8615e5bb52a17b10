"""Handlers that fail, exit, hang and leak, on real Ray processes: parked or stopped, and every other key goes on."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio

from headwater import NewEvent, connect
from headwater.cluster.client import Client
from headwater.cluster.local import LocalCluster
from headwater.cluster.options import ClusterOptions
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.store import PostgresEventStore
from tests.distributed.misbehaving.app import KINDS, RAISES, app
from tests.plugins.databases import new_database
from tests.plugins.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SAYS = {
    "Poison": "ValueError: poison",
    "Exit": "handler actor",
    "Hang": "did not end in time",
    "Leak": "of the 400 MiB that it may have",
    "Cancelled": "CancelledError",
    "Iterated": "StopIteration",
    "Left": "SystemExit: 3",
    "Wordless": "Wordless: ",
    "Unpicklable": "Unpicklable: code 7",
}


class World:
    """One node that runs the app."""

    def __init__(self, url: str, client: Client, store: PostgresEventStore) -> None:
        self.url = url
        self.client = client
        self.store = store

    async def append(self, stream: str, *types: str) -> list[int]:
        result = await self.store.append(stream, [NewEvent(each) for each in types])
        return list(range(result.first_position, result.last_position + 1))

    def handled(self, subscription: str) -> list[int]:
        with psycopg.connect(self.url) as conn:
            query = 'SELECT "position" FROM "handled" WHERE "subscription" = %s'
            return [position for (position,) in conn.execute(query, [subscription]).fetchall()]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(database_server: str, template_database: str) -> AsyncIterator[World]:
    with new_database(database_server, template_database) as url:
        with psycopg.connect(url) as conn:
            conn.execute('CREATE TABLE "handled" ("subscription" text, "position" bigint, "stream" text)')
        os.environ["MISBEHAVING_DATABASE_URL"] = url
        async with connect(url) as store, LocalCluster(1) as cluster:
            # Long: attempts are counted, and whoever loses the lease makes another one.
            options = ClusterOptions.read(StoreOptions(url=url), {"HEADWATER_LEASE": "10"})
            client = await cluster.deploy(app, options)
            yield World(url, client, store)
        del os.environ["MISBEHAVING_DATABASE_URL"]


async def test_each_ends_parked_with_its_key_waiting_behind_it_and_every_other_key_going_on(world: World) -> None:
    bad = {kind: await world.append(f"park-{kind}", "Placed", kind, "Placed") for kind in KINDS + RAISES}
    good = [await world.append(f"park-{n}", "Placed") for n in range(20)]
    await world.client.wait_for("parks", timeout=180)
    parked = {record.position: record for record in await world.client.parked("parks")}
    for kind, (_, culprit, behind) in bad.items():
        assert (parked[culprit].reason, parked[culprit].attempts) == ("failed", 2)
        assert SAYS[kind] in (parked[culprit].error or "")
        assert (parked[behind].reason, parked[behind].attempts) == ("behind", 0)
    assert len(parked) == 2 * len(KINDS + RAISES)
    expected = {first for first, _, _ in bad.values()} | {position for [position] in good}
    assert set(world.handled("parks")) == expected


@pytest.mark.parametrize("kind", KINDS)
async def test_each_ends_stopped_with_the_reason_where_that_is_wanted(world: World, kind: str) -> None:
    name = f"stops-{kind}"
    first, culprit = await world.append(f"stop{kind}-1", "Placed", kind)

    async def failed() -> bool:
        [found] = await world.client.partitions(name)
        return found.phase == "failed"

    await until(failed, deadline=180, what=f"waiting until {name} has stopped")
    [found] = await world.client.partitions(name)
    assert f"position {culprit} ({kind}) failed 2 times" in (found.reason or "")
    assert SAYS[kind] in (found.reason or "")
    assert found.checkpoint < culprit
    await world.append(f"stop{kind}-2", "Placed")
    assert world.handled(name) == [first]
