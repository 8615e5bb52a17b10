"""What the tests of pulling look at: a store, its programs, and who looks after them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from headwater import PulledBatch, PullSubscription, SubscriptionOptions, pull
from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions
from headwater.storage.postgres.store import PostgresEventStore

SOON = timedelta(milliseconds=20)


class World:
    """A store with five events of one stream, and whoever looks after it."""

    def __init__(self, cluster: ClusterOptions, store: PostgresEventStore, client: Client) -> None:
        self.cluster = cluster
        self.store = store
        self.client = client

    @asynccontextmanager
    async def pulling(self, name: str = "invoices", **options: Any) -> AsyncIterator[PullSubscription]:
        defaults: dict[str, Any] = {"batch_size": 10, "poll_interval": SOON}
        chosen = SubscriptionOptions(**(defaults | options))
        async with pull(name, chosen, cluster=self.cluster) as subscription:
            yield subscription

    async def checkpoint(self, name: str = "invoices") -> int:
        [found] = await self.client.partitions(name)
        return found.checkpoint


def numbers(batch: PulledBatch) -> list[int]:
    return [event.number for event in batch.events]


async def take(batches: AsyncIterator[PulledBatch]) -> PulledBatch:
    return await anext(batches)
