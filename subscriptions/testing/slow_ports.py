"""Ports of a simulated history that take their time and sometimes fail, before or after they took effect.

A coroutine that uses them is driven by whoever sends it ``None`` once for each pause.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from headwater.storage.errors import StaleEpoch, StoreUnavailable
from headwater.storage.leases import Grant, RetryBegun, ToRetry
from headwater.storage.memory.subscriptions import MemoryCheckpoints
from headwater.storage.model import EventPage
from headwater.subscriptions.testing.world import World, at_once

T = TypeVar("T")


class Pause:
    """Awaited, it lets other things happen."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class SlowParking:
    """The parked events of the world."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def to_retry(self, grant: Grant, *, limit: int = 100) -> list[ToRetry]:
        return await _slowly(self._world, lambda: self._world.parking.to_retry(grant, limit=limit))

    async def begin_retry(self, grant: Grant, position: int) -> RetryBegun | None:
        return await _slowly(self._world, lambda: self._begin(grant, position), writes=True)

    async def _begin(self, grant: Grant, position: int) -> RetryBegun | None:
        begun = await self._world.parking.begin_retry(grant, position)
        if begun is not None:
            self._world.retries.began(position, self._world.now)
        return begun

    async def retried(self, grant: Grant, position: int, key: str | None, error: str | None = None) -> None:
        await _slowly(self._world, lambda: self._retried(grant, position, key, error), writes=True)

    async def _retried(self, grant: Grant, position: int, key: str | None, error: str | None) -> None:
        await self._world.parking.retried(grant, position, key, error)
        if error is None:
            self._world.retries.settled(position)


class SlowCheckpoints(MemoryCheckpoints):
    """The rows of the world, of which only the parked keys are asked for here."""

    def __init__(self, world: World) -> None:
        super().__init__(world.coordination)
        self._world = world

    async def parked_keys(self, grant: Grant) -> set[str]:
        return await _slowly(self._world, lambda: super(SlowCheckpoints, self).parked_keys(grant))


class SlowReader:
    """The events of the world."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def read_page(self, source: str, after: int, limit: int, **_: Any) -> EventPage:  # noqa: ARG002  # the port's shape
        await Pause()
        return self._world.read(after, limit)

    async def head(self) -> int:
        return self._world.head


def executed_late(write: Callable[[], object]) -> None:
    """Let the database execute a write that nobody waits for any more."""
    with suppress(StaleEpoch):
        write()


async def _slowly(world: World, work: Callable[[], Coroutine[Any, Any, T]], *, writes: bool = False) -> T:
    await Pause()
    if world.chance(world.weather.read_fails):
        if writes and world.chance(world.weather.save_late):
            wait = world.random.choice([0.1, 1.0])
            world.soon(wait, partial(executed_late, lambda: at_once(work())))
        raise StoreUnavailable("no answer")
    result = await work()
    await Pause()
    if world.chance(world.weather.save_fails):
        raise StoreUnavailable("no answer, though it took effect")
    return result
