"""Headwater without ``await``: the same store for synchronous programs.

::

    from headwater import NewEvent, sync

    with sync.connect("postgresql://localhost/shop") as store:
        store.append("order-1", [NewEvent("OrderPlaced", {"total": 42})])

    with sync.pull("invoices") as subscription:
        for batch in subscription:
            ...
            batch.ack()
"""

from __future__ import annotations

from typing import Any

from headwater.cluster.blocking import BlockingBatch, BlockingPull, BlockingSubscriber
from headwater.cluster.options import ClusterOptions
from headwater.storage.blocking import BlockingEventStore
from headwater.storage.opening import connect as _connect
from headwater.subscriptions.observer import Observer
from headwater.subscriptions.options import SubscriptionOptions

__all__ = ["BlockingBatch", "BlockingEventStore", "BlockingPull", "BlockingSubscriber", "connect", "pull"]


def connect(url: str | None = None, **settings: Any) -> BlockingEventStore:
    """Open a store; close it, or use it as a context manager. Takes what :func:`headwater.connect` takes."""
    return BlockingEventStore(lambda: _connect(url, **settings))


def pull(
    name: str,
    options: SubscriptionOptions | None = None,
    *,
    cluster: ClusterOptions | None = None,
    observer: Observer | None = None,
) -> BlockingPull:
    """Consume a named subscription, for the length of a ``with``. Takes what :func:`headwater.pull` takes."""
    return BlockingPull(name, options, cluster=cluster, observer=observer)
