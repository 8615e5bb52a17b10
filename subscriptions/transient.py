"""Pull subscriptions that leave nothing behind: no row, no lease, no checkpoint.

Never touches what a durable subscription of the same name has saved.
"""

from __future__ import annotations

from headwater.storage.checks import check_name, check_number
from headwater.storage.leases import PartitionKey
from headwater.storage.memory.subscriptions import MemoryCheckpoints, MemoryCoordination, MemoryLeases
from headwater.subscriptions.heads import Heads
from headwater.subscriptions.observer import Observer
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.ports import EventReader, Opener
from headwater.subscriptions.pull import PullSubscription


def transient(
    name: str,
    options: SubscriptionOptions,
    reader: EventReader,
    *,
    after: int = 0,
    stream_id: int | None = None,
    heads: Heads | None = None,
    observer: Observer | None = None,
    opener: Opener | None = None,
) -> PullSubscription:
    """Make a subscription that begins after a number each time, and forgets at its end how far it came.

    Everything else is as in pull mode: order, several subscribers, acknowledgements, retries, back-pressure. Nobody
    could look after parked events, so what the policy would park is skipped. ``stream_id`` says which incarnation of
    a stream ``after`` counts in. Raises InvalidArgument.
    """
    check_name("name", name)
    check_number("after", after)
    coordination = MemoryCoordination()
    key = PartitionKey(name, 0, 0)
    coordination.start_at(key, after, stream_id)
    return PullSubscription(
        key,
        options,
        reader=reader,
        leases=MemoryLeases(coordination, "transient"),
        checkpoints=MemoryCheckpoints(coordination),
        heads=heads,
        observer=observer,
        opener=opener,
        parks=False,
    )
