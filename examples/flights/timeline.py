"""What a run looked like over time: samples, and what follows from them.

Pure: whoever watches a run adds samples; the view, the picture and the report read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SubscriptionSample:
    """One subscription at one moment."""

    position: int
    """Its checkpoint: everything up to here is settled."""
    phase: str
    node: str | None
    """The node that owns it; None while nobody does."""
    epoch: int = 0
    delivered: int = 0
    redelivered: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """The whole run at one moment."""

    at: float
    """Seconds since the first event was appended."""
    head: int
    subscriptions: Mapping[str, SubscriptionSample]

    @property
    def slowest(self) -> int:
        """The position of the subscription that is behind most."""
        return min(there.position for there in self.subscriptions.values())

    def work_of(self, node: str) -> int:
        """How many events the subscriptions that a node owns have handled."""
        return sum(there.delivered for there in self.subscriptions.values() if there.node == node)

    def lag(self, name: str) -> int:
        """How many events a subscription is behind the head."""
        return max(0, self.head - self.subscriptions[name].position)


@dataclass(frozen=True, slots=True)
class Kill:
    """The node that was killed, and what it owned."""

    node: str
    at: float
    """Seconds since the first event was appended."""
    wall: float
    """The same moment by the machine's clock."""
    owned: Mapping[str, int]
    """The subscriptions that lived there, with their epochs."""


@dataclass
class Timeline:
    """All samples of a run, in order, and the kill in the middle."""

    total: int
    """How many events there will be."""
    samples: list[Sample] = field(default_factory=list)
    kill: Kill | None = None
    takeovers: dict[str, float] = field(default_factory=dict)
    """Seconds from the kill to the next event handled, by subscription that lived on the killed node."""

    @property
    def last(self) -> Sample | None:
        """The newest sample."""
        return self.samples[-1] if self.samples else None

    def rates(self, window: float = 2.0) -> dict[str, float]:
        """Return the events a second, lately: appended under ``""``, worked through by subscription name."""
        if len(self.samples) < 2:
            return {}
        new = self.samples[-1]
        old = next((sample for sample in reversed(self.samples[:-1]) if new.at - sample.at >= window), self.samples[0])
        seconds = max(new.at - old.at, 1e-9)
        rates = {
            name: (there.position - old.subscriptions[name].position) / seconds
            for name, there in new.subscriptions.items()
            if name in old.subscriptions
        }
        return {"": (new.head - old.head) / seconds, **rates}
