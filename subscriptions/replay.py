"""Replays of a range: what was settled before is handed out once more, beside the stream.

Decides nothing about delivery: it drives a runner that reads only so far.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from headwater.storage.errors import InvalidArgument
from headwater.storage.leases import Grant, PartitionKey
from headwater.storage.memory.subscriptions import MemoryCheckpoints, MemoryCoordination, MemoryLeases
from headwater.subscriptions.boundaries import Until
from headwater.subscriptions.core.phases import Phase
from headwater.subscriptions.observer import Observer, Status
from headwater.subscriptions.options import Delivery, SubscriptionOptions
from headwater.subscriptions.ports import Checkpoints, Consumer, EventReader, Leases
from headwater.subscriptions.runner import SubscriptionRunner

LOOK = 0.02
"""How often it is looked whether the range is settled, in seconds."""


class RangeReplay:
    """One replay, whose progress is where ``checkpoints`` keeps it: it may be ended and gone on with elsewhere.

    1. Nothing of the subscription's own progress is touched.
    2. Nothing is parked: that would hold up the keys of the live delivery. What would be is skipped, and counted, also
       when the handler itself asks for it.
    """

    def __init__(
        self,
        options: SubscriptionOptions,
        grant: Grant,
        *,
        reader: EventReader,
        leases: Leases,
        checkpoints: Checkpoints,
        consumers: Sequence[Consumer],
        until: int,
        side_effects: bool = True,
        observer: Observer | None = None,
    ) -> None:
        if options.delivery is Delivery.EXACTLY_ONCE:
            raise InvalidArgument(
                "delivery", "exactly-once effects are not made twice: rewind the subscription instead"
            )
        self._until = until
        self._runner = SubscriptionRunner(
            options,
            # Also what earlier sets of partitions had settled is handed out again.
            replace(grant, seam=None),
            reader=reader,
            leases=leases,
            checkpoints=checkpoints,
            consumers=consumers,
            observer=observer,
            boundaries=Until(until, side_effects=side_effects),
            parks=False,
        )

    @property
    def status(self) -> Status:
        """How far it is."""
        return self._runner.status

    @property
    def done(self) -> bool:
        """Whether everything of the range is settled."""
        return self.status.watermark >= self._until

    async def run(self) -> Status:
        """Return when all of the range is settled and saved, or when it was drained, or has stopped: see the status."""
        running = asyncio.create_task(self._runner.run(), name="headwater-replay")
        try:
            while not running.done() and not self.done:
                if self.status.phase in (Phase.FAILED, Phase.PAUSED):
                    return self.status
                await asyncio.wait([running], timeout=LOOK)
            self._runner.drain("the range is replayed")
            return await running
        finally:
            self._runner.stop("the replay was ended")
            await asyncio.wait([running])

    def drain(self) -> None:
        """Finish what is in flight, save, and let ``run`` return."""
        self._runner.drain("the replay was ended")

    def stop(self) -> None:
        """Let ``run`` return at once: what is in flight is delivered again when it is gone on with."""
        self._runner.stop("the replay was ended")


async def replay(
    name: str,
    options: SubscriptionOptions,
    consumers: Sequence[Consumer],
    reader: EventReader,
    *,
    after: int,
    until: int,
    side_effects: bool = True,
    observer: Observer | None = None,
) -> Status:
    """Hand out once more what lies after one number and up to another; returns when all of it is settled.

    Its progress is kept in memory: a crash ends the replay. The handler sees ``context.replaying``. Nothing is parked,
    and skipped events are told to the observer only. Returns early, with the phase and the reason, when the failure
    policy or the breaker stops it. Raises InvalidArgument for exactly-once delivery, whose effects are there already.
    """
    coordination = MemoryCoordination()
    key = PartitionKey(name, 0, 0)
    coordination.start_at(key, after)
    leases = MemoryLeases(coordination, "replay")
    (grant,) = await leases.claim([key])
    replaying = RangeReplay(
        options,
        grant,
        reader=reader,
        leases=leases,
        checkpoints=MemoryCheckpoints(coordination),
        consumers=consumers,
        until=until,
        side_effects=side_effects,
        observer=observer,
    )
    return await replaying.run()
