"""One replay of a range on a host: consumers of its own, made ready, driven, closed.

Knows neither commands nor the database.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from headwater.cluster.slot import Assigned, MakeConsumers
from headwater.storage.errors import HeadwaterError
from headwater.storage.leases import Grant, PartitionKey
from headwater.storage.model import RecordedEvent
from headwater.storage.postgres.replaying import ReplayCheckpoints, ReplayRange
from headwater.subscriptions.core.phases import Phase
from headwater.subscriptions.observer import LogObserver
from headwater.subscriptions.ports import EventReader, Leases
from headwater.subscriptions.replay import RangeReplay


class _Failures(LogObserver):
    """Counts what a replay passes over."""

    def __init__(self, checkpoints: ReplayCheckpoints) -> None:
        super().__init__()
        self._checkpoints = checkpoints

    def skipped(self, key: PartitionKey, event: RecordedEvent, error: str, attempts: int) -> None:
        super().skipped(key, event, error, attempts)
        self._checkpoints.note_failure(f"position {event.position}: {error}")


@dataclass(eq=False, kw_only=True)
class HostReplay:
    """A replay beside the live delivery: its handlers are its own, so that no consumer has two deliveries at a time."""

    assigned: Assigned
    grant: Grant
    found: ReplayRange
    reader: EventReader
    leases: Leases
    checkpoints: ReplayCheckpoints
    make_consumers: MakeConsumers
    _replay: RangeReplay | None = field(default=None, init=False)
    _drained: bool = field(default=False, init=False)

    def drain(self) -> None:
        """Finish what is in flight, save, and let ``run`` return."""
        self._drained = True
        if self._replay is not None:
            self._replay.drain()

    def stop(self) -> None:
        """Let ``run`` return at once."""
        self._drained = True
        if self._replay is not None:
            self._replay.stop()

    async def run(self) -> str | None:
        """Return the outcome; None when it was drained, or the lease is lost, before the end of the range."""
        assigned, found = self.assigned, self.found
        if self._drained:
            return None
        try:
            consumers = await asyncio.to_thread(self.make_consumers, assigned.handler, assigned.options)
        except HeadwaterError as error:
            return f"the handler cannot be started: {error}"
        try:
            for consumer in consumers:
                await consumer.start()
            replay = self._replay = RangeReplay(
                assigned.options,
                self.grant,
                reader=self.reader,
                leases=self.leases,
                checkpoints=self.checkpoints,
                consumers=consumers,
                until=found.until,
                side_effects=found.side_effects,
                observer=_Failures(self.checkpoints),
            )
            if self._drained:
                replay.drain()
            status = await replay.run()
        finally:
            for consumer in consumers:
                with contextlib.suppress(HeadwaterError):
                    await consumer.close()
        if replay.done:
            return f"replayed {found.after + 1} to {found.until}"
        if status.phase in (Phase.FAILED, Phase.PAUSED):
            return f"stopped after {status.watermark}: {status.reason}"
        return None
