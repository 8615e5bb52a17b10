"""Two faults at once: what helps to be quick is broken while something that matters breaks as well."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from headwater.cluster.status import PartitionStatus
from tests.chaos.faults.base import Fault
from tests.chaos.faults.hosts import CutHost, FreezeHost, HostClock, KillHost, KillLeaseSession
from tests.chaos.faults.postgres import CrashPostgres, DiskFull, EndBackends, ReadOnly, RestartPostgres
from tests.chaos.faults.redis import KillRedis, LieRedis, PauseRedis
from tests.chaos.follower import Wanted
from tests.chaos.world import PATIENCE, PlainWorld
from tests.plugins.waiting import until

QUIET: Final[Sequence[type[Fault[Any]]]] = (KillRedis, PauseRedis, LieRedis, HostClock)
LOUD: Final[Sequence[type[Fault[Any]]]] = (
    *(KillHost, FreezeHost, CutHost, KillLeaseSession),
    *(RestartPostgres, CrashPostgres, EndBackends, ReadOnly, DiskFull),
)


class TwoAtOnce(Fault[PlainWorld]):
    name = "two at once"
    what = "a host or Postgres breaks while Redis is killed, paused or lying, or while a host's clock is wrong"

    def __init__(self, world: PlainWorld, chance: random.Random) -> None:
        super().__init__(world, chance)
        self.quiet = self._choose(QUIET)
        self.loud = self._choose(LOUD)
        self.counts_from_heal, self.moves, self.hold = self.loud.counts_from_heal, self.loud.moves, self.loud.hold
        self.ends_sessions = self.loud.ends_sessions

    def _choose(self, kinds: Sequence[type[Fault[Any]]]) -> Fault[Any]:
        kind = self.chance.choice([kind for kind in kinds if kind.needs(self.world) is None])
        return kind(self.world, self.chance)

    def aim(self, partitions: Sequence[PartitionStatus]) -> Sequence[PartitionStatus]:
        """Aim both; the louder one says who is concerned."""
        self.quiet.aim(partitions)
        return self.loud.aim(partitions)

    def frozen(self) -> Sequence[int]:
        """Return what the louder one froze: the other one freezes no host."""
        return self.loud.frozen()

    async def inject(self) -> None:
        await self.quiet.inject()
        await until(self.quiet.took_effect, deadline=PATIENCE, what=f"waiting for the effect of {self.quiet.name!r}")
        await self.loud.inject()

    async def took_effect(self) -> bool:
        return await self.loud.took_effect()

    async def heal(self) -> None:
        await self.loud.heal()
        await self.quiet.heal()

    def wanted(self, concerned: Sequence[PartitionStatus], head: int) -> Mapping[tuple[str, int], Wanted]:
        """Return what the louder one wants."""
        return self.loud.wanted(concerned, head)


PAIRS = (TwoAtOnce,)
