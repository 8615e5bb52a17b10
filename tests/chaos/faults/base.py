"""What a fault is: something that is broken in a running world, seen to be broken, and mended."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Generic, TypeVar

from headwater.cluster.status import PartitionStatus
from tests.chaos.follower import Wanted
from tests.chaos.world import World

W = TypeVar("W", bound=World)


class CannotBreak(Exception):
    """This fault cannot be made on this machine, for this reason."""


class Fault(ABC, Generic[W]):
    """One fault, made once. ``aim`` comes first, then ``inject``; ``heal`` mends it, and is safe in any state."""

    name: ClassVar[str]
    what: ClassVar[str]
    """One line for the catalogue."""
    target: ClassVar[float | None] = None
    """The takeover that is wanted at the 99th percentile, in seconds."""
    counts_from_heal: bool = False
    """The takeover is counted from when it is mended, and not from the fault."""
    rarely: ClassVar[int] = 1
    """Made only each so many times that all others are made: one that takes long to mend."""
    moves: bool = False
    """Whether the partitions concerned must be granted anew; else it does to handle an event that came afterwards."""
    ends_sessions: bool = False
    """Whether the server ends sessions that hold leases: their owners do not know it until their sockets say so."""
    planned: ClassVar[bool] = False
    """Whether it is an operator's act, made in good order: once what earlier faults left is handled. Nothing may be
    handled again then."""
    hold: tuple[float, float] = (0.0, 0.0)
    """For how long it stays once it was seen, or once others went on, at least and at most, in seconds."""

    def __init__(self, world: W, chance: random.Random) -> None:
        self.world = world
        self.chance = chance

    @classmethod
    def needs(cls, world: W) -> str | None:
        """Return what is missing for this fault here; None when it can be made."""
        return None

    def frozen(self) -> Sequence[int]:
        """Return the processes that it froze in the middle of what they did."""
        return ()

    def aim(self, partitions: Sequence[PartitionStatus]) -> Sequence[PartitionStatus]:
        """Choose what to break; returns the partitions that are concerned, by default all."""
        return partitions

    @abstractmethod
    async def inject(self) -> None:
        """Break it."""

    @abstractmethod
    async def took_effect(self) -> bool:
        """Whether it can be seen from outside that it is broken; asked again until it can."""

    async def last(self) -> None:
        """Let it last: how long is part of the fault, and nothing is waited for."""
        await asyncio.sleep(self.chance.uniform(*self.hold))

    async def heal(self) -> None:
        """Mend it; returns when it is mended."""

    def wanted(self, concerned: Sequence[PartitionStatus], head: int) -> Mapping[tuple[str, int], Wanted]:
        """Return what counts as going on, for each partition concerned."""
        return {
            (p.subscription, p.partition): Wanted(epoch_above=p.epoch) if self.moves else Wanted(position_above=head)
            for p in concerned
        }
