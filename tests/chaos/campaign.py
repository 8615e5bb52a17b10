"""Makes one fault after another in a running world and measures what came of each."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.faults.base import Fault
from tests.chaos.world import LEASE, PATIENCE, World
from tests.plugins.waiting import until

Kind = type[Fault[Any]]
DIGITS: Final = 4
"""How exactly times are kept, in seconds after the point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One fault, and what was seen of it."""

    number: int
    kind: str
    world: str
    head: int
    """The store's head when it was made."""
    takeover: float
    """Seconds until the last of the partitions concerned went on."""
    slowest: tuple[str, int]
    """The partition that went on last."""
    effect: float
    """Seconds until it was seen to have taken effect."""
    length: float
    """Seconds from the end of the one before to the end of this one: settling, breaking, mending."""
    begun: float
    """When it was made, by the monotonic clock."""
    seen: float
    """When it was seen to have taken effect, by the same clock: what it froze was frozen by then."""
    concerned: tuple[tuple[str, int], ...]
    """The partitions that it concerned."""
    stale: int
    """Writes of former owners that were accepted."""
    frozen: tuple[int, ...]
    """The processes that it froze, each perhaps in the middle of a delivery."""
    fenced: float
    """From when on every former owner had certainly fenced itself, by the monotonic clock."""
    planned: bool
    """Whether it was made in good order: then nothing is handled again."""


def schedule(kinds: Sequence[Kind], seed: int) -> Iterator[Kind]:
    """Yield kinds for ever in an order that the seed decides: round by round, each once, the rare ones less often."""
    chance = random.Random(seed)
    for turn in itertools.count():
        due = [kind for kind in kinds if turn % kind.rarely == 0]
        yield from chance.sample(due, len(due))


class Campaign:
    """A run of faults in one world."""

    def __init__(self, world: World, seed: int, told: Callable[[Outcome], None] = lambda _: None) -> None:
        self.outcomes: list[Outcome] = []
        self._world = world
        self._seed = seed
        self._told = told
        self._stale = 0
        self._ended = time.monotonic()

    async def run(
        self,
        kinds: Sequence[Kind],
        number: int,
        enough: Callable[[int, int], bool] = lambda _faults, _events: True,
        until_time: float | None = None,
    ) -> None:
        """Make so many faults, and more until ``enough(faults, events)``, but none after a monotonic time.

        Raises NotSettled, NotGoingOn, EndedByItself.
        """
        for kind in schedule(kinds, self._seed):
            if until_time is not None and time.monotonic() > until_time:
                return
            made, head = len(self.outcomes), self.outcomes[-1].head if self.outcomes else 0
            if made >= number and enough(made, head):
                return
            await self.one(kind)

    async def one(self, kind: Kind) -> Outcome:
        """Make one fault of this kind; returns when everything is in order again."""
        world, number = self._world, len(self.outcomes) + 1
        fault = kind(world, random.Random(f"{self._seed} {number}"))
        if fault.planned:
            await world.handled(await world.head())
        concerned = fault.aim(await world.settled())
        head = await world.head()
        broken_at = time.monotonic()
        try:
            await fault.inject()
            await until(fault.took_effect, deadline=PATIENCE, what=f"waiting for the effect of {fault.name!r}")
            seen = time.monotonic()
            counted_from, behind = broken_at, head
            if fault.counts_from_heal:
                await fault.last()
                await fault.heal()
                counted_from, behind = time.monotonic(), await world.head()
            times = await world.follower.went_on(fault.wanted(concerned, behind), counted_from, PATIENCE)
            if not fault.counts_from_heal:
                await fault.last()
        finally:
            await fault.heal()
        mended = time.monotonic()
        await world.settled()
        stale = len(await world.stale_writes())
        outcome = Outcome(
            number=number,
            kind=fault.name,
            world=world.kind,
            head=head,
            takeover=round(max(times.values()), DIGITS),
            slowest=max(times, key=lambda owned: times[owned]),
            effect=round(seen - broken_at, DIGITS),
            seen=seen,
            length=round(time.monotonic() - self._ended, 2),
            begun=broken_at,
            concerned=tuple(times),
            stale=stale - self._stale,
            frozen=tuple(fault.frozen()),
            fenced=mended + LEASE if fault.ends_sessions else broken_at,
            planned=fault.planned,
        )
        self._stale, self._ended = stale, time.monotonic()
        self.outcomes.append(outcome)
        self._told(outcome)
        return outcome
