"""Handler actors that need what nodes have little of: placed where it is free, and the rest where it comes to be."""

from __future__ import annotations

from headwater import NewEvent, connect
from headwater.cluster.local import LocalCluster
from headwater.cluster.options import ClusterOptions
from headwater.cluster.status import PartitionStatus
from headwater.storage.options import StoreOptions
from tests.distributed.cluster.heavy import app
from tests.plugins.waiting import until


async def test_what_has_no_room_waits_with_a_reason_until_a_node_comes_that_has(database_url: str) -> None:
    options = ClusterOptions.read(StoreOptions(url=database_url), {"HEADWATER_LEASE": "10"})
    async with connect(database_url) as store, LocalCluster(2) as cluster:
        client = await cluster.deploy(app, options)
        await store.append("order-1", [NewEvent("Placed")])

        async def handled() -> list[PartitionStatus]:
            return [p for p in await client.partitions() if p.checkpoint == 1]

        async def two_have_handled_it() -> bool:
            return len(await handled()) == 2

        await until(two_have_handled_it, deadline=90, what="waiting for the two that there is room for")
        assert {p.node for p in await handled()} == set(cluster.nodes)
        [waiting] = [p for p in await client.partitions() if p.checkpoint == 0]
        assert waiting.phase == "unowned"
        assert "1 CPU may be taken by others" in (waiting.reason or "")
        third = await cluster.add_node()

        async def all_have_handled_it() -> bool:
            return len(await handled()) == 3

        await until(all_have_handled_it, deadline=90, what="waiting for the third")
        assert (await cluster.owners())[waiting.subscription, 0] == third
