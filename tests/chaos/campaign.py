"""Makes one fault after another in a running world and measures what came of each."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from tests.chaos.faults.base import Fault
from tests.chaos.world import PATIENCE, World
from tests.plugins.waiting import until

Kind = type[Fault[Any]]
STALE_FIGURES: Final = 4


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
    effect: float
    """Seconds until it was seen to have taken effect."""
    length: float
    """Seconds from the end of the one before to the end of this one: settling, breaking, mending."""
    redelivered: int
    out_of_order: int
    stale: int


def schedule(kinds: Sequence[Kind], number: int, seed: int) -> Iterator[Kind]:
    """Yield so many kinds in an order that the seed decides: each once before any twice, as far as they go."""
    chance = random.Random(seed)
    left = number
    while left > 0:
        round_ = list(kinds)
        chance.shuffle(round_)
        yield from round_[:left]
        left -= len(round_)


class Campaign:
    """A run of faults in one world."""

    def __init__(self, world: World, seed: int, told: Callable[[Outcome], None] = lambda _: None) -> None:
        self.outcomes: list[Outcome] = []
        self._world = world
        self._seed = seed
        self._told = told
        self._stale = 0
        self._before = (0, 0)
        self._ended = time.monotonic()

    async def run(self, kinds: Sequence[Kind], number: int, until_time: float | None = None) -> None:
        """Make so many faults, or as many as fit before a monotonic time. Raises NotSettled, NotGoingOn."""
        for kind in schedule(kinds, number, self._seed):
            if until_time is not None and time.monotonic() > until_time:
                return
            await self.one(kind)

    async def one(self, kind: Kind) -> Outcome:
        """Make one fault of this kind; returns when everything is in order again."""
        world, number = self._world, len(self.outcomes) + 1
        fault = kind(world, random.Random(f"{self._seed} {number}"))
        concerned = fault.aim(await world.settled())
        head = await world.head()
        broken_at = time.monotonic()
        try:
            await fault.inject()
            await until(fault.took_effect, deadline=PATIENCE, what=f"waiting for the effect of {fault.name!r}")
            effect = time.monotonic() - broken_at
            counted_from, behind = broken_at, head
            if fault.counts_from_heal:
                await asyncio.sleep(fault.chance.uniform(*fault.hold))
                await fault.heal()
                counted_from, behind = time.monotonic(), await world.head()
            times = await world.follower.went_on(fault.wanted(concerned, behind), counted_from, PATIENCE)
        finally:
            await fault.heal()
        await world.settled()
        return await self._note(fault, head, max(times.values()), effect)

    async def _note(self, fault: Fault[Any], head: int, takeover: float, effect: float) -> Outcome:
        checker = self._world.checker
        stale = len(await self._world.stale_writes())
        now = (checker.redelivered, len(checker.out_of_order))
        outcome = Outcome(
            number=len(self.outcomes) + 1,
            kind=fault.name,
            world=self._world.kind,
            head=head,
            takeover=round(takeover, STALE_FIGURES),
            effect=round(effect, STALE_FIGURES),
            length=round(time.monotonic() - self._ended, 2),
            redelivered=now[0] - self._before[0],
            out_of_order=now[1] - self._before[1],
            stale=stale - self._stale,
        )
        self._before, self._stale, self._ended = now, stale, time.monotonic()
        self.outcomes.append(outcome)
        self._told(outcome)
        return outcome

    def as_json(self) -> list[dict[str, Any]]:
        """Return the outcomes as plain values."""
        return [asdict(outcome) for outcome in self.outcomes]
