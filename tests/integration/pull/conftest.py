"""A store with some events, and programs that pull them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from headwater import NewEvent, connect
from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions
from headwater.storage.options import StoreOptions
from tests.integration.pull.world import SOON, World
from tests.integration.subscriptions.following import LEASE


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    cluster = ClusterOptions(store=StoreOptions(url=database_url), assignment_interval=SOON, lease=LEASE)
    async with connect(database_url) as store, await Client.open(cluster) as client:
        await store.append("order-1", [NewEvent("OrderPaid", {"total": n}) for n in range(1, 6)])
        yield World(cluster, store, client)
