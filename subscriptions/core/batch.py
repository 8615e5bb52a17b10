"""A run of events on its way: waiting for its turn, in flight, or waiting for its next attempt.

Holds no decisions.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from headwater.storage.leases import Progress
from headwater.subscriptions.core.lanes import Places


@dataclass(slots=True)
class Batch:
    """Places that are delivered together."""

    places: Places
    keys: tuple[str, ...] = ()
    """What stays busy until this batch, and all that follows it in ``rest``, is settled."""
    attempt: int = 1
    """Which attempt the next, or current, delivery is."""
    counted: bool = False
    """Whether the durable progress must name exactly this batch, and its attempt, before it is delivered."""
    rest: deque[int] = field(default_factory=deque)
    """Places of a batch that was taken apart: each is delivered alone, after this one."""
    rest_attempt: int = 1
    """Which attempt the first delivery of each of ``rest`` is."""
    parts: dict[int, int] | None = None
    """While in flight, once a part of it is settled: what is left, place by number."""
    commit: Progress | None = None
    """While in flight, exactly-once only: what the handler's transaction saves."""

    def __len__(self) -> int:
        return len(self.places if self.parts is None else self.parts)

    def gather(self) -> None:
        """Let the places be what is left after parts of it were settled."""
        if self.parts is not None:
            self.places = tuple(self.parts.values())
            self.parts = None
