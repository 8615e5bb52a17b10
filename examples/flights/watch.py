"""Watch a run: samples several times a second, the takeovers after a kill, and standing still.

Looks from outside, through what operators see; never touches what it looks at.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

from examples.flights import traces
from examples.flights.timeline import Kill, Sample, SubscriptionSample, Timeline
from headwater import StoreUnavailable

INTERVAL: Final = 0.25
"""Seconds between two samples."""
PATIENCE: Final = 60.0
"""Seconds without any progress after which a run counts as stuck."""


class Stuck(Exception):
    """Nothing has moved for too long."""


class Observed(Protocol):
    """What operators see of the subscriptions, by name, and the store's head."""

    async def look(self) -> tuple[int, dict[str, SubscriptionSample]]: ...


class Watch:
    """Fills a timeline."""

    def __init__(self, observed: Observed, timeline: Timeline, folder: Path) -> None:
        self._observed = observed
        self._timeline = timeline
        self._folder = folder
        self._began = time.monotonic()
        self._moved = (time.monotonic(), -1)
        self._new = asyncio.Event()

    def now(self) -> float:
        """Return the seconds since the watch began."""
        return time.monotonic() - self._began

    async def sample(self) -> Sample:
        """Take one sample. Raises Stuck."""
        head, subscriptions = await self._observed.look()
        sample = Sample(self.now(), head, subscriptions)
        self._timeline.samples.append(sample)
        self._notice_takeovers()
        progress = head + sum(there.position for there in subscriptions.values())
        if progress != self._moved[1]:
            self._moved = (time.monotonic(), progress)
        elif time.monotonic() - self._moved[0] > PATIENCE:
            stand = ", ".join(f"{name} at {there.position} ({there.phase})" for name, there in subscriptions.items())
            raise Stuck(f"nothing has moved for {PATIENCE:.0f} s: head at {head}, {stand}")
        self._new.set()
        self._new = asyncio.Event()
        return sample

    async def until(self, condition: Callable[[Sample], bool]) -> Sample:
        """Wait for a sample that fulfils the condition, and return it. Somebody else takes the samples."""
        while (sample := self._timeline.last) is None or not condition(sample):
            await self._new.wait()
        return sample

    @property
    def finished(self) -> bool:
        """Whether everything was appended, every subscription is at the head, and every takeover was seen."""
        sample, kill = self._timeline.last, self._timeline.kill
        if sample is None or sample.head < self._timeline.total:
            return False
        return not any(map(sample.lag, sample.subscriptions)) and (
            kill is None or kill.owned.keys() <= self._timeline.takeovers.keys()
        )

    async def until_finished(self) -> AsyncIterator[Sample]:
        """Yield samples until everything is done. Raises Stuck."""
        while not self.finished:
            try:
                sample = await self.sample()
            except StoreUnavailable:
                pass  # a database that does not answer for a moment is no reason to end the run
            else:
                yield sample
            await asyncio.sleep(INTERVAL)

    def killed(self, node: str) -> Kill:
        """Note that a node is being killed now, with what it owns by the newest sample."""
        sample = self._timeline.last
        owned = (
            {name: there.epoch for name, there in sample.subscriptions.items() if there.node == node} if sample else {}
        )
        self._timeline.kill = kill = Kill(node, self.now(), time.time(), owned)
        return kill

    def _notice_takeovers(self) -> None:
        kill = self._timeline.kill
        if kill is not None and kill.owned.keys() - self._timeline.takeovers.keys():
            self._timeline.takeovers.update(takeovers(kill, traces.read(self._folder, traces.FIRSTS)))


def takeovers(kill: Kill, firsts: Iterator[dict[str, float | str]]) -> dict[str, float]:
    """Return the seconds from the kill to the first event handled under a newer grant, by subscription."""
    found: dict[str, float] = {}
    for line in firsts:
        name, at = str(line["subscription"]), float(line["at"])
        if name in kill.owned and int(line["epoch"]) > kill.owned[name] and at > kill.wall:
            found[name] = min(at - kill.wall, found.get(name, at))
    return found
