"""The wanted state and what is seen of it, as values: subscriptions, partitions, commands, parked events.

Never does I/O. Options stay JSON values here: what they mean is the deciding side's to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from headwater.storage.leases import PartitionKey, Progress

Wanted: TypeAlias = Literal["running", "paused", "stopped"]

StartPoint: TypeAlias = Literal["origin", "current"] | int | datetime
"""Where a new subscription begins: at one end, after a number, or with the first event at or after a time."""

ParkedStatus: TypeAlias = Literal["parked", "retrying", "settled", "discarded"]


MOST_PARKED: Final = 1_000
"""So many parked events of a partition are counted; of more it is only said that there are."""

PULLED: Final = ""
"""In place of the handler of a subscription that programs of the users pull."""


@dataclass(frozen=True, slots=True)
class SubscriptionRecord:
    """A registered subscription."""

    name: str
    handler: str
    """Import path, or PULLED."""
    source: str
    options: Mapping[str, Any]
    partitions: int
    wanted: Wanted
    created_at: datetime
    updated_at: datetime
    repartition_to: int | None = None
    """How many partitions there will be, while that is being changed."""
    wanted_why: str | None = None
    """Who wanted it to rest, when, and why; None when it should run, or that is not known."""


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
    """Events between the checkpoint and the head; 0 once another version has taken over."""
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
    """Events that are set aside now: parked, waiting behind one that is, or to be handled again."""
    parked_ever: int
    """How often an event was set aside since registration, whatever became of it."""
    closed: bool
    """Whether another version has taken over: the reason says which, and where."""
    repartition_to: int | None = None
    """How many partitions the subscription will have, while that is being changed."""
    consumers: int | None = None
    """How many handler actors work for it; None when the handler runs in the owner's process."""
    pulled: bool = False
    """Whether programs of the users pull it: then the owner is one of them, and no host."""
    parked_more: bool = False
    """Whether more are set aside than ``parked`` says, which is MOST_PARKED then."""
    wanted_why: str | None = None
    """Who wanted it to rest, when, and why; None when it should run, or that is not known."""
    halted: str | None = None
    """The phase, ``failed`` or ``paused``, in which it waits for an operator, whoever owns it; None when it goes on."""
    halt_reason: str | None = None
    """Why, then; ``since`` says since when."""


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
class ParkedEdit:
    """One correction of a parked event's payload."""

    edited_by: str
    edited_at: datetime
    reason: str
    before: Any
    after: Any


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
    edit: ParkedEdit | None = None
    """For "edit parked": what the payload was, and what it became."""


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
    edited: bool
    """Whether the handler gets a corrected payload when it is handled again."""
    retry_at: datetime | None
    """When it is to be handled again at the earliest, while it waits for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedFilter:
    """Which of the parked events are meant; everything that is given must hold."""

    positions: tuple[int, ...] | None = None
    key: str | None = None
    """Those of one partition key."""
    stream: str | None = None
    """Those of one stream, by its exact name."""
    type: str | None = None
    """Those of one event type."""
    error: str | None = None
    """Those whose last error contains this text, literally."""


ALL_PARKED: Final = ParkedFilter()


@dataclass(frozen=True, slots=True)
class ParkedDetails:
    """A parked event with everything that is known of it."""

    parked: ParkedRecord
    data: Any
    """The payload as it is stored; None when the event was deleted for good."""
    metadata: Any
    edits: tuple[ParkedEdit, ...]
    """Its corrections, oldest first; the handler gets what the last one says."""
