"""The owner's look at what was parked: which events to handle again, and which keys are free.

Decides nothing: it reads, tells the machine, and writes down what came of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Final

from headwater.storage.errors import StaleEpoch
from headwater.storage.leases import Grant, ToRetry
from headwater.storage.model import ALL, RecordedEvent
from headwater.subscriptions.core import effects, inputs
from headwater.subscriptions.core.failing import DIED
from headwater.subscriptions.core.machine import Machine
from headwater.subscriptions.core.phases import delivers
from headwater.subscriptions.core.retrying import ParkedRetry
from headwater.subscriptions.observer import Observer
from headwater.subscriptions.ports import Checkpoints, EventReader, Parking

SELDOM: Final = 10
"""While no parked events are known, it is looked this many times less often."""


class ParkedRetries:
    """Looks for parked events to handle again, every so often and when it is asked to."""

    def __init__(
        self,
        grant: Callable[[], Grant],
        machine: Machine,
        tell: Callable[[inputs.Input], None],
        *,
        parking: Parking,
        checkpoints: Checkpoints,
        reader: EventReader,
        observer: Observer,
        interval: float,
        attempts: int,
    ) -> None:
        """``grant`` tells the present one: it changes with each rewind.

        An event that was begun ``attempts`` times without an end is set aside again: its owners have died of it.
        """
        self._grant = grant
        self._writes = count(1)
        self._machine = machine
        self._tell = tell
        self._parking = parking
        self._checkpoints = checkpoints
        self._reader = reader
        self._observer = observer
        self._interval = interval
        self._attempts = attempts
        self._asked = asyncio.Event()
        self._due: float | None = None
        """After so many seconds the next event of a retry with a rate may be handed out."""

    def ask(self) -> None:
        """Look now."""
        self._asked.set()

    def numbered(self, grant: Grant) -> Grant:
        """Return the grant for one more write about a parked event: what was given up before does nothing after it."""
        return grant.numbered(next(self._writes))

    async def run(self) -> None:
        """Look until cancelled, or until the lease is lost."""
        while True:
            self._asked.clear()  # before the look: what is asked for during it counts
            try:
                if delivers(self._machine.condition.phase):
                    await self.look()
            except StaleEpoch as error:
                self._tell(inputs.LeaseLost(str(error)))
                return
            except Exception as error:  # noqa: BLE001  # whatever it is, it is looked again, and the reason is shown
                self._observer.trouble(self._grant().key, "look at parked events", error)
            await self._pause()

    async def begin(self, effect: effects.Deliver) -> effects.Deliver | None:
        """Count the attempt, then return the delivery with the corrected payload; None when it must not be made.

        Raises StaleEpoch.
        """
        event = effect.events[0]
        begun = await self._parking.begin_retry(self.numbered(self._grant()), event.position)
        if begun is None:
            self._tell(inputs.Withdrawn(effect.delivery_id))
            return None
        if begun.edited is None:
            return effect
        # As an operator has corrected it, as JSON, for this delivery only.
        return replace(effect, events=[event._replace(raw_data=begun.edited)])

    async def write(self, effect: effects.Retry) -> None:
        """Write down how the retry of an event went."""
        try:
            await self._parking.retried(self.numbered(self._grant()), effect.position, effect.key, effect.error)
        except StaleEpoch as error:
            self._tell(inputs.LeaseLost(str(error)))
        except Exception as error:  # noqa: BLE001  # the event stays parked, and comes again
            self._observer.trouble(self._grant().key, "settle a parked event", error)
        self._tell(inputs.RetryWritten(effect.position))
        self._asked.set()

    async def _pause(self) -> None:
        known = self._machine.blocked_keys or self._machine.parked
        rest = self._interval if known else self._interval * SELDOM
        try:
            async with asyncio.timeout(rest if self._due is None else min(rest, self._due)):
                await self._asked.wait()
        except TimeoutError:
            return

    async def look(self) -> None:
        """Look once: tell the machine what to handle again, or else which keys are free.

        Raises StaleEpoch, and whatever the store raises; looking again is safe.
        """
        if self._machine.retrying or self._machine.rewinding:
            return
        grant = self._grant()
        try:
            await self._look(grant)
        except StaleEpoch:
            if grant == self._grant():
                raise
            # Not the lease was lost: a rewind was begun meanwhile, and what was found does not count any more.

    async def _look(self, grant: Grant) -> None:
        rewinds = self._machine.rewinds
        asked = await self._to_retry(grant)
        self._due = min((each.wait for each in asked if each.wait > 0), default=None)
        retries = [
            ParkedRetry(found, each.key, each.attempts, each.number)
            for each in asked
            if each.wait <= 0 and (found := await self._event(grant, each.position, each.key)) is not None
        ]
        if retries:
            self._tell(inputs.RetryParked(tuple(retries), rewinds))
            return
        blocked, parked = self._machine.blocked_keys, self._machine.parked
        if blocked:
            freed = blocked - await self._checkpoints.parked_keys(grant)
            if freed:
                self._tell(inputs.KeysFreed(frozenset(freed), parked))

    async def _to_retry(self, grant: Grant) -> list[ToRetry]:
        found = await self._parking.to_retry(grant)
        died = [each for each in found if each.begun >= self._attempts]
        for each in died:
            await self._parking.retried(self.numbered(grant), each.position, each.key, DIED)
        return await self._parking.to_retry(grant) if died else found

    async def _event(self, grant: Grant, position: int, key: str | None) -> RecordedEvent | None:
        page = await self._reader.read_page(ALL, position - 1, 1)
        if page.events and page.events[0].position == position:
            return page.events[0]
        # A reader that shares what it has read may not have come there yet: then it is asked again at the next look.
        if page.read_to >= position:
            # Deleted for good since: there is nothing left to handle.
            await self._parking.retried(self.numbered(grant), position, key)
        return None
