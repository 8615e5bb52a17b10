"""A host: one process that runs many partitions, each as long as it has been granted the lease.

Decides no placement: it does what the database says it should, and claims only what it was assigned. It needs neither
the supervisor nor Ray to go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Protocol

from headwater.cluster.attempts import Attempts
from headwater.cluster.bell import Bell
from headwater.cluster.options import ClusterOptions
from headwater.cluster.slot import PREPARE_AGAIN, PREPARE_SELDOM, Assigned, MakeConsumers, MakeRunner, Slot
from headwater.storage.errors import HeadwaterError, StaleEpoch, StoreUnavailable
from headwater.storage.leases import Grant, News, PartitionKey
from headwater.storage.model import MAX_BIGINT
from headwater.storage.outages import Outage
from headwater.subscriptions.heads import Heads
from headwater.subscriptions.ports import Checkpoints, Leases
from headwater.subscriptions.raised import described

log = logging.getLogger(__name__)

OWNERS_FIRST = 0.5
"""How long a host whose lease session was lost leaves what it only stands by for to the owners, in seconds: when the
database was away all of them come back together, and what is taken from an owner moves back later."""
DEFECT_PAUSE, DEFECT_SELDOM = 1.0, 60.0
"""How long a partition rests on this host after its runner ended by a defect, in seconds: twice as long each time,
up to the second, and as at first once it has run for longer than that."""


LAST_WORD: Final = MAX_BIGINT
"""The number of what a host says of a grant whose runner has ended: the runner numbers its own reports from 1."""


class Directory(Protocol):
    """What this host should run, and what it tells about itself."""

    async def assigned(self, host: str) -> tuple[bool, Sequence[Assigned]]:
        """Whether the host should drain, and the partitions it should own or stand by for."""
        ...

    async def ready(self, host: str, keys: Sequence[PartitionKey]) -> None:
        """Say that the host is ready to take these over."""
        ...

    async def troubles(self, host: str, reasons: Mapping[PartitionKey, str]) -> None:
        """Say what the host cannot run, and why; written only where something else was said before."""
        ...

    async def start_draining(self, host: str) -> None:
        """Say that the host takes nothing new."""
        ...

    async def obey(self, slots: Sequence[Slot]) -> None:
        """Apply what operators have asked of the partitions that run here."""
        ...


class Host:
    """Runs what it is assigned.

    1. A partition is delivered here only under a grant of this host's session.
    2. What is no longer assigned is drained, checkpointed and released; the consumers are closed afterwards.
    3. An outage of the database ends nothing by itself: grants are lost with their session, and claimed again.
    """

    def __init__(
        self,
        name: str,
        options: ClusterOptions,
        *,
        leases: Leases,
        directory: Directory,
        checkpoints: Checkpoints,
        heads: Heads,
        make_consumers: MakeConsumers,
        make_runner: MakeRunner,
    ) -> None:
        self.name = name
        self._options = options
        self._leases = leases
        self._directory = directory
        self._checkpoints = checkpoints
        self._heads = heads
        self._make_consumers = make_consumers
        self._make_runner = make_runner
        self._slots: dict[PartitionKey, Slot] = {}
        self._starts = Attempts(PREPARE_AGAIN, PREPARE_SELDOM)
        self._defects = Attempts(DEFECT_PAUSE, DEFECT_SELDOM)
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: dict[PartitionKey, asyncio.Task[None]] = {}
        self._draining = False
        self._drained = asyncio.Event()
        self._assignments = Bell()
        self._claims = Bell()
        self._owners_first_until = float("-inf")
        self._outage = Outage(log, f"host {name} waits for the database", f"host {name} goes on")

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The partitions that are here, in whatever state."""
        return tuple(self._slots.values())

    def tell(self, news: News) -> None:
        """Look at once at what has changed, and not only when the interval is over."""
        match news:
            case News.WANTED | News.ASSIGNED:
                self._assignments.ring()
            case News.RELEASED:
                self._claims.ring()
            case News.CONNECTED:
                self._owners_first_until = time.monotonic() + OWNERS_FIRST
                self._claims.ring()

    async def run(self) -> None:
        """Run until drained, or cancelled: then everything ends at once and is taken over by others."""
        loops = [
            asyncio.create_task(self._heads.run(), name="headwater-heads"),
            asyncio.create_task(
                self._repeat("assignments", self.reconcile, self._assignments, self._options.assignment_interval),
                name="headwater-assignments",
            ),
            asyncio.create_task(
                self._repeat("claims", self.claim, self._claims, self._options.claim_interval), name="headwater-claims"
            ),
        ]
        try:
            await self._drained.wait()
        finally:
            for slot in self._slots.values():
                slot.stop()
            await _cancel([*loops, *self._tasks])
            for slot in self._slots.values():
                await slot.close()

    async def drain(self) -> None:
        """Take nothing new, hand everything over, and let ``run`` return. Safe to repeat."""
        if not self._draining:
            self._draining = True
            with contextlib.suppress(StoreUnavailable):
                await self._directory.start_draining(self.name)
            for key in list(self._slots):
                self._leave(key)
        await asyncio.gather(*self._leaving.values())
        self._drained.set()

    async def reconcile(self) -> None:
        """Compare what is here with what should be here: prepare what is new, let go of what is not wanted."""
        if self._draining:
            return
        should_drain, wanted = await self._directory.assigned(self.name)
        if should_drain:
            self._begin(self.drain())
            return
        by_key = {assigned.key: assigned for assigned in wanted}
        for key, slot in list(self._slots.items()):
            if key not in by_key or not slot.fits(by_key[key]):
                self._leave(key)
        for key, assigned in by_key.items():
            if key in self._leaving:
                continue
            if key in self._slots:
                self._slots[key].update(assigned)
            else:
                self._slots[key] = slot = Slot(
                    self.name, assigned, self._make_consumers, self._make_runner, self._starts
                )
                slot.preparing = self._begin(slot.prepare())
        await self._announce()
        failing = {slot.key for slot in self._slots.values() if slot.trouble is not None}
        reasons = self._starts.reasons(failing, self._slots, time.monotonic())
        await self._directory.troubles(self.name, reasons)
        commanded = [slot for slot in self._slots.values() if slot.running and slot.assigned.commanded]
        if commanded:
            await self._directory.obey(commanded)

    async def _announce(self) -> None:
        """Say once of each partition that this host stands by for that it is ready."""
        standing_by = {
            slot.key
            for slot in self._slots.values()
            if slot.ready and slot.assigned.wanted_standby == self.name and slot.assigned.standby != self.name
        }
        if standing_by:
            await self._directory.ready(self.name, sorted(standing_by, key=lambda key: key.lock_id))

    async def claim(self) -> None:
        """Try to get everything that may be claimed, in one statement."""
        owners_first = time.monotonic() < self._owners_first_until
        wanted = {
            slot.key: slot
            for slot in self._slots.values()
            if slot.may_claim() and (not owners_first or slot.assigned.wanted_owner == self.name)
        }
        if not wanted or self._draining:
            return
        for grant in await self._leases.claim(list(wanted)):
            slot = wanted[grant.key]
            if slot.draining:  # it was let go while the claim was under way
                self._begin(self._leases.release([grant]))
                continue
            slot.grant = grant
            log.info("%s/%d granted to %s, epoch %d", *_names(grant), self.name, grant.epoch)
            slot.owning = self._begin(self._own(slot, grant))

    async def _own(self, slot: Slot, grant: Grant) -> None:
        """Run a partition for as long as its grant lasts, then give the lease back."""
        began = time.monotonic()
        try:
            await slot.run(grant, self._checkpoints)
        except StaleEpoch:
            log.warning("%s/%d has another owner", *_names(grant))
        except Exception as error:
            log.exception("%s/%d ended by a defect", *_names(grant))
            now = time.monotonic()
            if now - began > DEFECT_SELDOM:
                self._defects.succeeded(slot.key)
            pause = self._defects.failed(slot.key, None, described(error), now)
            reason = f"it ended by a defect, {described(error)}; it is tried again after {pause:g} s"
            with contextlib.suppress(HeadwaterError):
                await self._checkpoints.report(grant.numbered(LAST_WORD), "stuck", reason)
            await slot.rest(pause, lambda: self._leases.lost(grant))
        finally:
            lost = self._leases.lost(grant)
            if not lost:
                with contextlib.suppress(StoreUnavailable):
                    await self._leases.release([grant])
            slot.grant = slot.owning = None
            if lost:
                self._claims.ring()  # the next session may be there already

    def _leave(self, key: PartitionKey) -> None:
        """Begin to let go of a partition; it stays in its slot until nothing of it runs here."""
        if key not in self._leaving:
            slot = self._slots[key]
            slot.drain()
            self._leaving[key] = self._begin(self._let_go(slot))

    async def _let_go(self, slot: Slot) -> None:
        if slot.owning is not None:
            await asyncio.wait([slot.owning])
        await slot.close()
        del self._slots[slot.key]
        del self._leaving[slot.key]

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("host %s goes on after an error", self.name, exc_info=error)

    async def _repeat(self, name: str, step: Callable[[], Awaitable[None]], bell: Bell, interval: timedelta) -> None:
        while True:
            try:
                await step()
                self._outage.ends(name)
            except StoreUnavailable as error:
                self._outage.goes_on(error, name)
            except Exception:
                log.exception("host %s goes on after an error", self.name)
            await bell.pause(interval.total_seconds())

    def __repr__(self) -> str:
        return f"<Host {self.name} running={sum(s.running for s in self._slots.values())} slots={len(self._slots)}>"


def _names(grant: Grant) -> tuple[str, int]:
    return grant.key.subscription, grant.key.partition


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
