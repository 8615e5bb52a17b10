"""The subscriptions as operators see them, in the terms of this run."""

from __future__ import annotations

from collections.abc import Sequence

from examples.flights.timeline import SubscriptionSample
from headwater import EventStore
from headwater.cluster.client import Client


class Observer:
    """Looks at the store's head and at every subscription."""

    def __init__(self, client: Client, store: EventStore, names: Sequence[str]) -> None:
        """``names`` are the subscriptions to look at, in the order in which to show them."""
        self._client = client
        self._store = store
        self._names = names

    async def look(self) -> tuple[int, dict[str, SubscriptionSample]]:
        """Return the head and the subscriptions by name."""
        found = {there.subscription: there for there in await self._client.partitions()}
        # The head last: no subscription is seen ahead of it.
        head = await self._store.head()
        return head, {
            name: SubscriptionSample(
                position=there.checkpoint,
                phase=there.phase,
                node=there.node,
                epoch=there.epoch,
                delivered=there.delivered,
                redelivered=there.redelivered,
            )
            for name in self._names
            if (there := found.get(name)) is not None
        }

    async def settled(self, nodes: Sequence[str]) -> bool:
        """Whether every subscription has an owner, and a standby if there is a node for it, and none will move.

        None moves once the nodes own as many each, or one more.
        """
        partitions = await self._client.partitions()
        ready = [there for there in partitions if there.node and (there.standby or len(nodes) == 1)]
        owned = [sum(there.node == node for there in partitions) for node in nodes]
        return len(ready) == len(self._names) and max(owned) - min(owned) <= 1
