"""Waiting until a subscription has settled what was appended: reading one's own write from a read model.

Never decides what is settled: it looks, until that is so or the time is over. Nobody tells it: that would cost a
message for each checkpoint, of which hardly any is waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from headwater.storage.checks import check_name, check_number
from headwater.storage.errors import InvalidArgument, StreamDeleted, SubscriptionNotFound, WaitTimedOut

FIRST_PAUSE: Final = 0.005
USUAL_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 0.25
"""The pauses between two looks, in seconds: doubled from the first to the usual one, and up to the longest one in waits
that have lasted long."""
SHARE: Final = 0.02
"""The part of itself by which a look may prolong a long wait."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one partition of a subscription is, and how far it has to be."""

    partition: int
    checkpoint: int
    source: str
    deleted: bool
    """Whether the source is a stream that is soft-deleted: nothing more of it is handled."""
    target: int
    """The number, in the source's own counting, up to which everything must be settled."""
    same_stream: bool
    """Whether the checkpoint counts in the stream that is there now."""
    reached: bool
    """Whether the store's head has come to the position; before that the target is not known."""

    @property
    def settled(self) -> bool:
        """Whether everything up to the position is settled."""
        return self.reached and self.same_stream and self.checkpoint >= self.target


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a partition is doing, for whoever waited in vain."""

    phase: str
    reason: str | None
    lag: int


@dataclass(frozen=True, slots=True)
class Watched:
    """How far a subscription in memory is: what its runtime tells the store."""

    source: str
    checkpoint: int
    stream_id: int | None
    trouble: Trouble


Look = Callable[[str, int], Awaitable[Sequence[Standing]]]
Explain = Callable[[str, int], Awaitable[Trouble]]


async def wait_for(
    look: Look,
    explain: Explain,
    subscription: str,
    position: int,
    timeout: float,  # noqa: ASYNC109  # part of the contract: the error says where the subscription stands
) -> None:
    """Look until every partition has settled the position."""
    check_name("subscription", subscription)
    check_number("position", position)
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
        raise InvalidArgument("timeout", f"must be a number of seconds, 0 or more, not {timeout!r}")
    begun, pause = time.monotonic(), FIRST_PAUSE
    while True:
        standings = await look(subscription, position)
        if not standings:
            raise SubscriptionNotFound(subscription)
        open_ones = [each for each in standings if not each.settled]
        if not open_ones:
            return
        if open_ones[0].deleted and open_ones[0].target:
            raise StreamDeleted(open_ones[0].source)
        waited = time.monotonic() - begun
        if waited >= timeout:
            slowest = min(open_ones, key=lambda each: each.checkpoint)
            trouble = await explain(subscription, slowest.partition)
            raise WaitTimedOut(
                subscription,
                position,
                partition=slowest.partition,
                checkpoint=slowest.checkpoint,
                phase=trouble.phase,
                reason=trouble.reason,
                lag=trouble.lag,
            )
        await asyncio.sleep(min(max(pause, waited * SHARE), LONGEST_PAUSE, timeout - waited))
        pause = min(USUAL_PAUSE, pause * 2)
