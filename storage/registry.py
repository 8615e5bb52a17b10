"""The wanted state and what is seen of it, as values: subscriptions, partitions, commands, parked events.

Never does I/O. Options stay JSON values here: what they mean is the deciding side's to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from headwater.storage.leases import PartitionKey, Progress

Wanted: TypeAlias = Literal["running", "paused", "stopped"]

StartPoint: TypeAlias = Literal["origin", "current"] | int | datetime
"""Where a new subscription begins: at one end, after a number, or with the first event at or after a time."""

ParkedStatus: TypeAlias = Literal["parked", "retrying", "settled", "discarded"]


@dataclass(frozen=True, slots=True)
class SubscriptionRecord:
    """A registered subscription."""

    name: str
    handler: str
    """Import path."""
    source: str
    options: Mapping[str, Any]
    partitions: int
    wanted: Wanted
    created_at: datetime
    updated_at: datetime
    repartition_to: int | None = None
    """How many partitions there will be, while that is being changed."""


@dataclass(frozen=True, slots=True)
class PartitionState:
    """A partition as operators and the supervisor see it."""

    key: PartitionKey
    options: Mapping[str, Any]
    source: str
    wanted: Wanted
    wanted_owner: str | None
    wanted_standby: str | None
    owner: str | None
    """The host that holds the lease; None when nobody does."""
    standby: str | None
    """The host that is ready to take over."""
    epoch: int
    checkpoint: int
    head: int
    """The highest number of the source."""
    lag: int
    """Events between the checkpoint and the head."""
    lag_seconds: float
    """The age of the first event behind the checkpoint; 0 when there is none."""
    phase: str
    reason: str | None
    since: datetime
    granted_at: datetime | None
    checkpointed_at: datetime | None
    delivered: int
    redelivered: int
    parked: int
    repartition_to: int | None = None
    """How many partitions the subscription will have, while that is being changed."""
    consumers: int | None = None
    """How many handler actors work for it; None when the handler runs in the owner's process."""


@dataclass(frozen=True, slots=True)
class PartitionSet:
    """All partitions of a subscription, by their number: how far each came, and what the sets before had settled."""

    partition_by: str | None
    progress: Sequence[Progress]
    seamed: Sequence[bool]
    """For which of them the seam counts."""
    seam: Any | None = None
    """The marks of the sets before, as a JSON value."""


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """What an operator asked for."""

    command_id: int
    subscription: str
    partition: int | None
    lock_id: int | None
    verb: str
    arguments: Mapping[str, Any]
    issued_by: str
    issued_at: datetime
    applied_at: datetime | None
    outcome: str | None


@dataclass(frozen=True, slots=True)
class ParkedRecord:
    """An event that was set aside."""

    parked_id: int
    subscription: str
    partition: int
    position: int
    number: int
    partition_key: str | None
    status: ParkedStatus
    reason: str
    error: str | None
    attempts: int
    parked_at: datetime
    updated_at: datetime
    stream: str | None
    """None when the event was deleted for good."""
    type: str | None
