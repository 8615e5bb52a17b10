"""A partition's consumers on one host: started ahead of the grant, and more or fewer of them as the load wants.

Decides nothing: how many there should be is ``Scaling``'s to say, and who gets what is the runner's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Final, Protocol

from headwater.storage.errors import HeadwaterError
from headwater.storage.leases import Grant
from headwater.subscriptions.core.scaling import Scaling
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.ports import Checkpoints, Consumer
from headwater.subscriptions.runner import SubscriptionRunner

log = logging.getLogger(__name__)

LOOK: Final = 0.25
"""How often the load is looked at, in seconds."""
START_TIMEOUT: Final = 30.0
"""How long one more consumer may take to start; then it is left, and tried again when it is still wanted."""


class StartableConsumer(Consumer, Protocol):
    """A consumer that is made ready ahead of its first delivery, and may be again after it was closed."""

    async def start(self) -> None: ...


class Crew:
    """Consumers by their seats: as many as there may be, of which some are started.

    1. One that is given up gets nothing more, finishes what it has, and is closed then.
    2. A seat whose consumer has not answered is never given to another one.
    """

    def __init__(self, options: SubscriptionOptions, consumers: Sequence[StartableConsumer]) -> None:
        self.consumers = consumers
        """All of them, by seat."""
        self._options = options
        self._least = max(1, options.least_consumers)
        self._started: set[int] = set()

    async def start(self) -> None:
        """Start as many as there are always; when one fails, none stays. Raises what the handler raised."""
        try:
            for seat in range(self._least):
                await self._start(seat)
        except BaseException:
            await self.close()
            raise

    async def scale(self, runner: SubscriptionRunner, grant: Grant, checkpoints: Checkpoints) -> None:
        """Keep as many at work as the load wants, until cancelled; says how many, whenever that changes."""
        options = self._options
        if options.most_consumers == 0:
            return
        working, told = self._least, None
        scaling = Scaling(
            options.least_consumers,
            options.most_consumers,
            idle_after=options.idle_after.total_seconds(),
            now=time.monotonic(),
        )
        while True:
            if told != working:
                with contextlib.suppress(HeadwaterError):  # told again when it is another one
                    await checkpoints.report_consumers(grant, working)
                    told = working
            await asyncio.sleep(LOOK)
            worked, waiting = runner.load()
            wanted = scaling.wanted(working, worked, waiting, time.monotonic())
            while working < wanted and await self._add(runner, working):
                working += 1
            while working > wanted:
                working -= 1
                runner.retire(working)
            for seat in [each for each in self._started if each >= working and not runner.holds(each)]:
                await self._close(seat)

    async def close(self) -> None:
        """Stop all of them; safe to repeat. Call when nothing runs."""
        for seat in tuple(self._started):
            await self._close(seat)

    async def _add(self, runner: SubscriptionRunner, seat: int) -> bool:
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._start(seat)
        except Exception as error:  # noqa: BLE001  a handler may fail in any way; the others go on without it
            log.warning("consumer %d cannot be started: %r", seat, error)
            return False
        runner.join(seat, self.consumers[seat])
        return True

    async def _start(self, seat: int) -> None:
        if seat not in self._started:
            try:
                await self.consumers[seat].start()
            except BaseException:
                with contextlib.suppress(HeadwaterError):
                    await self.consumers[seat].close()
                raise
            self._started.add(seat)

    async def _close(self, seat: int) -> None:
        self._started.discard(seat)
        with contextlib.suppress(HeadwaterError):
            await self.consumers[seat].close()
