"""The subscriptions as operators see them, in the terms of this run."""

from __future__ import annotations

from examples.flights.timeline import SubscriptionSample
from headwater import EventStore
from headwater.cluster.client import Client


class Observer:
    """Looks at the store's head and at every subscription."""

    def __init__(self, client: Client, store: EventStore) -> None:
        self._client = client
        self._store = store

    async def look(self) -> tuple[int, dict[str, SubscriptionSample]]:
        """Return the head and the subscriptions by name."""
        partitions = await self._client.partitions()
        # The head last: no subscription is seen ahead of it.
        head = await self._store.head()
        return head, {
            there.subscription: SubscriptionSample(
                position=there.checkpoint,
                phase=there.phase,
                node=there.node,
                epoch=there.epoch,
                delivered=there.delivered,
                redelivered=there.redelivered,
            )
            for there in partitions
        }

    async def settled(self, subscriptions: int, *, standbys: bool) -> bool:
        """Whether so many subscriptions have an owner, and a standby."""
        partitions = await self._client.partitions()
        ready = [there for there in partitions if there.node and (there.standby or not standbys)]
        return len(ready) == subscriptions
