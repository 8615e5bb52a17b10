"""What operators see of partitions, hosts, replacements and the whole deployment.

Values only: whoever asks for them is the client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from headwater.cluster.plan import HostFacts
from headwater.cluster.unplaced import why_unowned
from headwater.storage.postgres.replacing import OPEN, ReplacementRow
from headwater.storage.registry import PartitionState

ENDED: Final = ("stopped", "finished")
"""Phases of partitions that nobody should own."""


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """One partition of a subscription, as operators see it."""

    subscription: str
    partition: int
    phase: str
    """``running``, ``paused``, ``stuck``, ...; ``unowned`` when nobody holds the lease, ``repartitioning`` when nobody
    should because the number of partitions is being changed."""
    reason: str | None
    since: datetime
    node: str | None
    """The node that owns it, or the program that pulls it; None when nobody does."""
    standby: str | None
    """The node that is ready to take over."""
    lag: int
    """Events between the checkpoint and the head; 0 when it is ``finished``."""
    lag_seconds: float
    """The age of the first event behind the checkpoint."""
    checkpoint: int
    delivered: int
    redelivered: int
    parked: int
    """Events that are set aside now: parked, waiting behind one that is, or to be handled again."""
    parked_more: bool
    """Whether there are more of them than that: beyond a thousand of a partition they are not counted."""
    parked_ever: int
    """How often an event was set aside since registration, whatever became of it."""
    epoch: int
    consumers: int | None
    """How many handler actors work for it; None when the handler runs in the owner's process."""
    pulled: bool
    """Whether programs of the users pull it: nobody places it, and no node stands by."""

    @classmethod
    def of(cls, state: PartitionState, hosts: Mapping[str, HostFacts]) -> PartitionStatus:
        """Tell it from what is stored and from the hosts that are alive, by their names: only these count."""
        owner, standby = hosts.get(state.owner or ""), hosts.get(state.standby or "")
        node = state.owner if state.pulled else None if owner is None else owner.node
        phase, reason = _unowned(state, list(hosts.values())) if node is None else (state.phase, state.reason)
        if state.repartition_to is not None:
            becomes = f"becomes one of {state.repartition_to} partitions"
            reason = f"{becomes}: {reason}" if node and reason else becomes
        return cls(
            subscription=state.key.subscription,
            partition=state.key.partition,
            phase=phase,
            reason=reason,
            since=state.since,
            node=node,
            standby=standby.node if standby is not None and standby is not owner else None,
            lag=state.lag,
            lag_seconds=state.lag_seconds,
            checkpoint=state.checkpoint,
            delivered=state.delivered,
            redelivered=state.redelivered,
            parked=state.parked,
            parked_more=state.parked_more,
            parked_ever=state.parked_ever,
            epoch=state.epoch,
            consumers=state.consumers if node else None,
            pulled=state.pulled,
        )


@dataclass(frozen=True, slots=True)
class HostStatus:
    """A process that runs partitions, and is alive."""

    host: str
    node: str
    owns: int
    stands_by: int
    draining: bool
    started_at: datetime


@dataclass(frozen=True, slots=True)
class ReplacementStatus:
    """A new version and the old one that it replaces."""

    old: str
    new: str
    phase: str
    """``catching up``, ``taking over``, ``done`` or ``cancelled``."""
    since: datetime
    events_to_go: int
    """How far it is behind the old version."""
    seconds_to_go: float | None
    """At the rate so far; None before there is one."""
    issued_by: str
    issued_at: datetime

    @classmethod
    def of(cls, row: ReplacementRow) -> ReplacementStatus:
        """Tell it from what is stored."""
        to_go = row.to_go or 0
        done = row.reached - row.began_at
        seconds = 0.0 if row.phase not in OPEN or not to_go else to_go * row.elapsed / done if done > 0 else None
        return cls(row.old, row.new, row.phase, row.since, to_go, seconds, row.issued_by, row.issued_at)

    def describe(self) -> str:
        """Say it in a few words."""
        left = "" if self.seconds_to_go is None else f", {self.seconds_to_go:.0f} s"
        return f"{self.phase}, {self.events_to_go} to go{left}"


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """The whole deployment in a few figures."""

    head: int
    hosts: int
    subscriptions: int
    partitions: int
    unowned: int
    """Partitions that should run and have no owner."""
    without_standby: int
    lag: int
    """The lag of the slowest."""
    lag_seconds: float
    parked: int
    """Events that are set aside now."""
    parked_more: bool
    """Whether there are more than that: beyond a thousand of a partition they are not counted."""
    phases: dict[str, int]
    moving: dict[str, str]
    """Partitions that operators have asked to move: where to, and for how long they have waited for it."""
    replacing: dict[str, str]
    """New versions that are about to take over: what they do, how much is to go, and for how long."""


def _unowned(state: PartitionState, hosts: Sequence[HostFacts]) -> tuple[str, str | None]:
    if state.closed:
        return state.phase, state.reason
    if state.repartition_to is not None:
        return "repartitioning", None
    if state.wanted == "stopped":
        return "stopped", f"stopped {state.wanted_why or 'by an operator'}"
    nobody = "no program pulls it" if state.pulled else why_unowned(state, hosts)
    return "unowned", nobody if state.halted is None else f"{nobody}; {state.halted}: {state.halt_reason}"
