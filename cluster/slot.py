"""One partition on one host: prepared to run, running under a grant, or letting go.

Knows nothing of other partitions; when to claim and what to release is the host's to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headwater.cluster.attempts import Attempts
from headwater.cluster.crew import Crew, StartableConsumer
from headwater.cluster.replays import SlotReplays
from headwater.storage.errors import ImportPathError
from headwater.storage.leases import Grant, PartitionKey
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.ports import Checkpoints, Consumer
from headwater.subscriptions.runner import SubscriptionRunner

log = logging.getLogger(__name__)

HEAD_START = 2.0
"""How long a standby leaves a partition that nobody owned yet to its wanted owner, in seconds."""
PREPARE_AGAIN, PREPARE_SELDOM = 3.0, 60.0
"""How long until a handler that could not be loaded is tried again: twice as long each time, up to the second."""
LOOK_AGAIN = 1.0
"""How often something that rests looks whether it still has its lease, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """What a host is told about a partition that it should own or stand by for."""

    key: PartitionKey
    handler: str
    """Import path."""
    options: SubscriptionOptions
    paused: bool
    wanted_owner: str | None
    wanted_standby: str | None
    owner: str | None
    standby: str | None
    commanded: bool = True
    """Whether operators may have asked something of it that is not done."""
    paused_why: str | None = None
    """Who paused it, when, and why, if it is paused and that is known."""
    trouble: str | None = None
    """Why it cannot run, when what is stored of it cannot be read; the options say nothing then."""


MakeConsumers = Callable[[str, SubscriptionOptions], Sequence[StartableConsumer]]
"""Makes a handler's consumers from its import path; raises ImportPathError, ConfigurationError."""
MakeRunner = Callable[[SubscriptionOptions, Grant, Sequence[Consumer]], SubscriptionRunner]


class Slot:
    """A partition's place on a host.

    1. There is at most one runner, and it is the only one that delivers to the consumers.
    2. Consumers outlive grants: they are made once, while the host stands by, and closed when the partition leaves.
    """

    def __init__(
        self,
        host: str,
        assigned: Assigned,
        make_consumers: MakeConsumers,
        make_runner: MakeRunner,
        attempts: Attempts | None = None,
    ) -> None:
        self._host = host
        self._attempts = Attempts(PREPARE_AGAIN, PREPARE_SELDOM) if attempts is None else attempts
        self.assigned = assigned
        self._make_consumers = make_consumers
        self._make_runner = make_runner
        self._crew: Crew | None = None
        self._runner: SubscriptionRunner | None = None
        self._changed = asyncio.Event()
        self._seen_at = time.monotonic()
        self.draining = False
        """Whether the partition is leaving this host: nothing new is begun."""
        self._paused = False
        self.grant: Grant | None = None
        self.preparing: asyncio.Task[None] | None = None
        self.owning: asyncio.Task[None] | None = None
        """What runs under the grant, and gives it back at its end."""
        self.replays = SlotReplays()
        """What operators let it hand out once more, beside the live delivery."""
        self.trouble: str | None = None
        """Why the handler could not be made ready, when it could not; or why it cannot run."""

    @property
    def key(self) -> PartitionKey:
        """Which partition."""
        return self.assigned.key

    @property
    def ready(self) -> bool:
        """Whether a grant could be used at once."""
        return self._crew is not None

    @property
    def running(self) -> bool:
        """Whether something is delivered, or could be."""
        return self._runner is not None

    def may_claim(self) -> bool:
        """Whether to try for the lease now.

        A standby leaves the first grant to the wanted owner; later a free lease means that the owner is gone. A wanted
        owner that is in trouble can only say so, and leaves the lease to a standby that is ready.
        """
        if self.grant is not None or self.draining:
            return False
        waited = time.monotonic() - self._seen_at
        if self.assigned.wanted_owner == self._host:
            alone = self.assigned.standby in (None, self._host)
            return self.ready or (self.trouble is not None and (alone or waited > 2 * HEAD_START))
        owned_as_wanted = self.assigned.owner is not None and self.assigned.owner == self.assigned.wanted_owner
        return self.ready and (owned_as_wanted or waited > HEAD_START)

    def update(self, assigned: Assigned) -> None:
        """Take note of what is wanted now; the handler and its options are the same as before."""
        if assigned.wanted_owner != self.assigned.wanted_owner:
            self._seen_at = time.monotonic()
        self.assigned = assigned
        self._obey_pause()

    def fits(self, assigned: Assigned) -> bool:
        """Whether these consumers still do for what is wanted now."""
        mine = self.assigned
        theirs = (assigned.key, assigned.handler, assigned.options, assigned.trouble)
        return theirs == (mine.key, mine.handler, mine.options, mine.trouble)

    async def prepare(self) -> None:
        """Load the handler and start its consumers; tries again until it succeeds or is cancelled.

        Without options that can be read there is nothing to try: the partition comes again when there are.
        """
        what = (self.assigned.handler, self.assigned.options, self.assigned.trouble)
        if self.assigned.trouble is not None:
            self.trouble = self.assigned.trouble
            self._attempts.failed(self.key, what, self.trouble, time.monotonic())
            log.warning("%s/%d: %s", self.key.subscription, self.key.partition, self.trouble)
            return
        while self._crew is None:
            rests = self._attempts.last(self.key, what, time.monotonic())
            if rests is not None:  # it has just failed, perhaps before it left and came again
                self.trouble, left = rests
                await asyncio.sleep(left)
            try:
                consumers = await asyncio.to_thread(self._make_consumers, self.assigned.handler, self.assigned.options)
                crew = Crew(self.assigned.options, consumers)
                await crew.start()
            except Exception as error:  # noqa: BLE001  a handler may fail in any way; the operator is told how
                self.trouble = f"the handler cannot be started: {error}"
                if isinstance(error, ImportPathError):
                    self.trouble += f"; if no app has it any more: headwater stop (or delete) {self.key.subscription}"
                pause = self._attempts.failed(self.key, what, self.trouble, time.monotonic())
                log.warning("%s/%d: %s; again in %g s", self.key.subscription, self.key.partition, self.trouble, pause)
            else:
                self._crew, self.trouble = crew, None
                self._attempts.succeeded(self.key)
        self._changed.set()

    async def run(self, grant: Grant, checkpoints: Checkpoints) -> None:
        """Run under a grant until drained, or until the lease is lost."""
        while self._crew is None and not self.draining:
            self._changed.clear()  # before it is told: what changes meanwhile counts
            await checkpoints.report(grant, "stuck", self.trouble)
            await self._changed.wait()
        if self._crew is None or self.draining:
            return
        self._runner = self._make_runner(self.assigned.options, grant, self._crew.consumers)
        self.replays = SlotReplays()
        self._paused = False
        self._obey_pause()
        scaling = asyncio.create_task(self._crew.scale(self._runner, grant, checkpoints), name="headwater-scaling")
        try:
            status = await self._runner.run()
            log.info("%s/%d ended here: %s", self.key.subscription, self.key.partition, status.reason)
        finally:
            self._runner = None
            scaling.cancel()
            await asyncio.wait([scaling])
            if not scaling.cancelled() and (error := scaling.exception()) is not None:
                log.error("%s/%d was not scaled", self.key.subscription, self.key.partition, exc_info=error)
            await self.replays.end()

    async def rest(self, seconds: float, over: Callable[[], bool]) -> None:
        """Wait before something is tried again, until it is let go, or it is ``over``."""
        until = time.monotonic() + seconds
        while not self.draining and not over() and (left := until - time.monotonic()) > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(left, LOOK_AGAIN))

    def drain(self) -> None:
        """Finish what is in flight, and let ``run`` return; claims nothing any more. Safe to repeat."""
        self.draining = True
        self._changed.set()
        self.replays.drain()
        if self._runner is not None:
            self._runner.drain()

    def stop(self) -> None:
        """Let ``run`` return at once: what is in flight is delivered again by the next owner."""
        self.draining = True
        self._changed.set()
        self.replays.stop()
        if self._runner is not None:
            self._runner.stop()

    async def close(self) -> None:
        """Stop the consumers; safe to repeat. Call when nothing runs."""
        if self.preparing is not None:
            self.preparing.cancel()
            await asyncio.wait([self.preparing])
        crew, self._crew = self._crew, None
        if crew is not None:
            await crew.close()

    @property
    def paused(self) -> bool:
        """Whether an operator's last word is that it rests."""
        return self._paused

    @property
    def runner(self) -> SubscriptionRunner | None:
        """What runs now, for operators' commands."""
        return self._runner

    def _obey_pause(self) -> None:
        if self._runner is None or self._paused == self.assigned.paused:
            return
        self._paused = self.assigned.paused
        if self._paused:
            self._runner.pause(f"paused {self.assigned.paused_why or 'by an operator'}")
        else:
            self._runner.resume()

    def __repr__(self) -> str:
        state = "running" if self.running else "ready" if self.ready else "preparing"
        return f"<Slot {self.key.subscription}/{self.key.partition} {state}>"
