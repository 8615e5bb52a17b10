"""Every error of the durable side, as typed, picklable values with fields.

Never a text to be parsed: callers look at the class and at the fields.

::

    HeadwaterError
    ├── InvalidArgument            a value that can never work; the message names the argument
    ├── ConfigurationError         settings that do not fit together, or a server that cannot serve them
    │   ├── SchemaMissing          the tables are not there: run the migrations
    │   ├── SchemaOutdated         the tables are older, or newer, than this program
    │   ├── SqlRefused             a transaction of the store in memory was taken for a connection to a database
    │   ├── PoolerRefused          a transaction-mode pooler stands before a connection that must keep its session
    │   └── ImportPathError        a handler, selector or key function that cannot be imported by its path
    ├── AppendError
    │   ├── WrongExpectedVersion
    │   │   ├── StreamExists       NO_STREAM was expected and the stream has events
    │   │   └── StreamMissing      STREAM_EXISTS was expected and there is no such stream
    │   ├── DuplicateEvent         an event id is stored already, elsewhere or in another order
    │   │   └── AlreadyLinked      an event that is to be linked stands in that stream already
    │   ├── ConditionFailed        an event that matches the append's condition has appeared
    │   └── ReservedStream         ``$all`` cannot be written to, linked to or deleted
    ├── StreamNotFound
    ├── StreamDeleted
    ├── EventNotFound              a link names an event that is not stored
    ├── SnapshotNotFound
    ├── HardDeletesDisabled
    ├── ArchiveError
    │   ├── RangeArchived          the events are in an archive that this store was not told of
    │   └── ArchiveDamaged         a file of the archive is missing, or is not what was written
    ├── SubscriptionError
    │   ├── SubscriptionNotFound
    │   ├── SubscriptionConflict   cannot be reconciled with what is there; ``wait_for`` says what has to end first
    │   ├── StaleEpoch             another owner has been granted the lease since; nothing was written
    │   ├── UnexpectedAck          the delivery attempt is not in flight
    │   └── WaitTimedOut           a subscription has not settled a position in time; says where it stands and why
    ├── EncodingFailed             a payload the codec, or its class, cannot encode or decode
    ├── UpcastingFailed            an old payload that cannot be lifted to the newest shape
    ├── EncryptionError
    │   ├── KeyUnavailable         a subject's key that is not in the key store, or that no master key opens
    │   └── SealBroken             an encrypted payload that was altered, or moved to another event
    ├── StoreClosed
    └── StoreUnavailable           the database did not answer; ``retry_safe`` says whether nothing was written
        └── CommitUnknown          the connection broke at COMMIT: send the same events again to learn the outcome
"""

from __future__ import annotations

import difflib
import uuid
from typing import Any, Final

MOST_NAMES: Final = 10
"""How many names an error lists; of more it says how many."""


class HeadwaterError(Exception):
    """The root of all errors that Headwater raises on purpose. Its fields are its constructor's arguments."""

    retry_safe: bool = False
    """Whether the same call may be made again without writing anything twice."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields
        for name, value in fields.items():
            setattr(self, name, value)
        super().__init__(self.describe())

    def describe(self) -> str:
        """Say in one sentence what happened and what to do."""
        return ", ".join(f"{name}={value!r}" for name, value in self.fields.items())

    def __reduce__(self) -> Any:
        return _restore, (type(self), self.fields)


def _restore(kind: type[HeadwaterError], fields: dict[str, Any]) -> HeadwaterError:
    return kind(**fields)


class InvalidArgument(HeadwaterError, ValueError):
    """A value that can never work. Nothing was sent to the database."""

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(argument=argument, problem=problem)

    argument: str
    problem: str

    def describe(self) -> str:
        return f"{self.argument}: {self.problem}"


class ConfigurationError(HeadwaterError):
    """Settings that do not fit together, or a server that cannot serve them."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem=problem)

    problem: str

    def describe(self) -> str:
        return self.problem


class SchemaMissing(ConfigurationError):
    """The store's tables are not there."""


class SchemaOutdated(ConfigurationError):
    """The store's tables are older, or newer, than this program."""


class SqlRefused(ConfigurationError, AttributeError):
    """A transaction of the store in memory was taken for a connection to a database: it runs no SQL."""

    def __init__(self, attribute: str) -> None:
        HeadwaterError.__init__(self, attribute=attribute)

    attribute: str
    """What was asked of the transaction: ``execute``, ``cursor``, ..."""

    def describe(self) -> str:
        return (
            f"the transaction of the store in memory has no {self.attribute!r}, for it runs no SQL: there a handler "
            "can append by store.append(..., conn=context.transaction); test what writes to tables on Postgres"
        )


class PoolerRefused(ConfigurationError):
    """A transaction-mode pooler stands before a connection that must keep its session."""


class ImportPathError(ConfigurationError):
    """A handler, selector or key function that cannot be imported by its path."""


class AppendError(HeadwaterError):
    """An append that was refused whole; nothing of it was written."""


class WrongExpectedVersion(AppendError):
    """The stream is not at the version that the append expected."""

    def __init__(self, stream: str, expected: object, actual: int | None = None) -> None:
        super().__init__(stream=stream, expected=expected, actual=actual)

    stream: str
    expected: object
    actual: int | None

    def describe(self) -> str:
        return f"stream {self.stream!r} is at version {self.actual}, expected {self.expected!r}"


class StreamExists(WrongExpectedVersion):
    """NO_STREAM was expected and the stream has events."""


class StreamMissing(WrongExpectedVersion):
    """STREAM_EXISTS was expected and there is no such stream."""

    def describe(self) -> str:
        return f"stream {self.stream!r} does not exist, expected {self.expected!r}"


class DuplicateEvent(AppendError):
    """An event id is stored already, in another place or in another order than this append has it."""

    def __init__(self, stream: str, event_id: uuid.UUID | None = None) -> None:
        super().__init__(stream=stream, event_id=event_id)

    stream: str
    event_id: uuid.UUID | None

    def describe(self) -> str:
        return f"event {self.event_id} is stored already, or comes twice; append to {self.stream!r} refused"


class AlreadyLinked(DuplicateEvent):
    """A stream holds an event at most once, itself or by a link: one of those to be linked would come twice.

    Nothing was linked. Whoever only wants the link to be there has what they want.
    """

    def __init__(self, stream: str, event_id: uuid.UUID, named_twice: bool = False) -> None:
        HeadwaterError.__init__(self, stream=stream, event_id=event_id, named_twice=named_twice)

    named_twice: bool
    """Whether it stands twice among the events that were to be linked; else it was in the stream before."""

    def describe(self) -> str:
        if self.named_twice:
            return f"event {self.event_id} is to be linked into {self.stream!r} twice; nothing was linked"
        return f"event {self.event_id} is in stream {self.stream!r} already, itself or by a link; nothing was linked"


class ConditionFailed(AppendError):
    """An event that matches the append's condition has appeared after the given position."""

    def __init__(self, after: int, position: int | None = None) -> None:
        super().__init__(after=after, position=position)

    after: int
    position: int | None

    def describe(self) -> str:
        return f"a matching event has appeared after position {self.after} (at {self.position})"


class ReservedStream(AppendError):
    """``$all`` is an order, not a stream: it cannot be written to, linked to or deleted."""

    def __init__(self, stream: str, action: str) -> None:
        super().__init__(stream=stream, action=action)

    stream: str
    action: str

    def describe(self) -> str:
        return f"cannot {self.action} {self.stream!r}: it is the order of all events, not a stream"


class StreamNotFound(HeadwaterError):
    """There is no such stream."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream=stream)

    stream: str

    def describe(self) -> str:
        return f"stream {self.stream!r} does not exist"


class StreamDeleted(HeadwaterError):
    """The stream is soft-deleted."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream=stream)

    stream: str

    def describe(self) -> str:
        return f"stream {self.stream!r} is deleted; undelete it first"


class EventNotFound(HeadwaterError):
    """A link names an event that is not stored. Nothing was linked."""

    def __init__(self, event_id: uuid.UUID) -> None:
        super().__init__(event_id=event_id)

    event_id: uuid.UUID

    def describe(self) -> str:
        return f"event {self.event_id} is not stored"


class SnapshotNotFound(HeadwaterError):
    """There is no snapshot of that source."""

    def __init__(self, source: str) -> None:
        super().__init__(source=source)

    source: str

    def describe(self) -> str:
        return f"no snapshot of {self.source!r}"


class HardDeletesDisabled(HeadwaterError):
    """Hard deletes are off in this store's configuration."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream=stream)

    stream: str

    def describe(self) -> str:
        return (
            f"removing events of {self.stream!r} for good (hard delete, truncate) refused: "
            "open the store with hard_deletes=True"
        )


class ArchiveError(HeadwaterError):
    """Something about events that were moved out of the database into files."""


class RangeArchived(ArchiveError):
    """The events are needed and archived, and this store cannot look into the archive. Nothing was passed over."""

    def __init__(self, first_position: int, last_position: int, file: str | None = None) -> None:
        super().__init__(first_position=first_position, last_position=last_position, file=file)

    first_position: int
    last_position: int
    file: str | None

    def describe(self) -> str:
        where = f" in {self.file}" if self.file else ""
        return (
            f"the events at positions {self.first_position} to {self.last_position} are archived{where}: open the "
            "store with archive=FOLDER (HEADWATER_ARCHIVE) to read them, or bring them back by 'headwater restore'"
        )


class ArchiveDamaged(ArchiveError):
    """A file of the archive is missing, or is not what was written."""

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(file=file, problem=problem)

    file: str
    problem: str

    def describe(self) -> str:
        return f"archive file {self.file}: {self.problem}"


class SubscriptionError(HeadwaterError):
    """Something about a persistent subscription."""


class SubscriptionNotFound(SubscriptionError):
    """No subscription of that name is registered."""

    def __init__(self, subscription: str, known: tuple[str, ...] | None = None) -> None:
        super().__init__(subscription=subscription, known=known)

    subscription: str
    known: tuple[str, ...] | None
    """The names that there are, where they were at hand."""

    def describe(self) -> str:
        return f"no subscription named {self.subscription!r}{self._advice()}"

    def _advice(self) -> str:
        if self.known is None:
            return ""
        near = difflib.get_close_matches(self.subscription, self.known, 1)
        if near:
            return f"; did you mean {near[0]!r}?"
        if len(self.known) > MOST_NAMES:
            return f"; there are {len(self.known)} others"
        return f"; there are {', '.join(map(repr, self.known)) or 'none'}"


class SubscriptionConflict(SubscriptionError):
    """What is there already cannot be reconciled with what was asked for. Nothing was changed."""

    def __init__(self, subscription: str, problem: str, wait_for: str | None = None) -> None:
        super().__init__(subscription=subscription, problem=problem, wait_for=wait_for)

    subscription: str
    problem: str
    wait_for: str | None
    """What has to end before the same call can succeed: ``replacement``, ``replay``, ``rewind`` or ``repartition``."""

    def describe(self) -> str:
        return f"subscription {self.subscription!r}: {self.problem}"


def unpassed(subscription: str, end: int) -> SubscriptionConflict:
    """Return the error for what needs one number below which all is settled, while marks up to ``end`` count, too."""
    problem = f"wait until it has passed {end}: up to there its earlier partitions had settled some of the events"
    return SubscriptionConflict(subscription, problem, "repartition")


class StaleEpoch(SubscriptionError):
    """Another owner has been granted the lease since, or the owner has rewound the partition; nothing was written."""

    def __init__(self, subscription: str, partition: int, epoch: int) -> None:
        super().__init__(subscription=subscription, partition=partition, epoch=epoch)

    subscription: str
    partition: int
    epoch: int

    def describe(self) -> str:
        name = f"{self.subscription!r}/{self.partition}"
        return f"epoch {self.epoch} of {name} is over: another owner has the lease, or it was rewound since"


class UnexpectedAck(SubscriptionError):
    """The named delivery attempt is not in flight: never made, settled already, or superseded."""

    def __init__(self, subscription: str, delivery: object = None, number: int | None = None) -> None:
        super().__init__(subscription=subscription, delivery=delivery, number=number)

    subscription: str
    delivery: object
    """None when only the event is known."""
    number: int | None
    """The event that is not in flight, when it is about one of several: its number in the subscription's source."""

    def describe(self) -> str:
        if self.number is not None:
            where = "" if self.delivery is None else f" in delivery {self.delivery!r}"
            return f"event {self.number} of {self.subscription!r} is not in flight{where}"
        return f"delivery {self.delivery!r} of {self.subscription!r} is not in flight"


class WaitTimedOut(SubscriptionError, TimeoutError):
    """A subscription has not settled a position in time. What was appended is stored; waiting again is safe."""

    retry_safe = True

    def __init__(
        self,
        subscription: str,
        position: int,
        *,
        partition: int,
        checkpoint: int,
        phase: str,
        reason: str | None,
        lag: int,
    ) -> None:
        super().__init__(
            subscription=subscription,
            position=position,
            partition=partition,
            checkpoint=checkpoint,
            phase=phase,
            reason=reason,
            lag=lag,
        )

    subscription: str
    position: int
    partition: int
    """The partition that is furthest behind."""
    checkpoint: int
    """Where it stands, in the counting of its source: positions, or versions of its stream."""
    phase: str
    """What it is doing: ``running``, ``paused``, ``failed``, ``unowned``, ..."""
    reason: str | None
    lag: int
    """How many events of its source it is behind."""

    def describe(self) -> str:
        why = f", {self.reason}" if self.reason else ""
        return (
            f"{self.subscription!r}/{self.partition} has not settled position {self.position}: "
            f"it is at {self.checkpoint}, {self.lag} behind, {self.phase}{why}"
        )


class EncodingFailed(HeadwaterError):
    """A payload that the codec cannot encode or decode."""

    def __init__(self, event_type: str, problem: str) -> None:
        super().__init__(event_type=event_type, problem=problem)

    event_type: str
    problem: str

    def describe(self) -> str:
        return f"payload of {self.event_type!r}: {self.problem}"


class UpcastingFailed(HeadwaterError):
    """An old payload that cannot be lifted: a step is missing, goes round in a circle, or has raised."""

    def __init__(self, event_type: str, version: int, problem: str, position: int | None = None) -> None:
        super().__init__(event_type=event_type, version=version, problem=problem, position=position)

    event_type: str
    version: int
    """The shape from which no step leads on."""
    problem: str
    position: int | None
    """Where the event stands; None for a snapshot, and when the steps were registered."""

    def describe(self) -> str:
        place = "" if self.position is None else f" at position {self.position}"
        return f"{self.event_type!r} version {self.version}{place}: {self.problem}"


class EncryptionError(HeadwaterError):
    """A payload that is encrypted cannot be read, or one cannot be encrypted."""


class KeyUnavailable(EncryptionError):
    """A subject's key that is not in the key store, or that no master key opens. A destroyed key is no error."""

    def __init__(self, key_id: uuid.UUID, problem: str) -> None:
        super().__init__(key_id=key_id, problem=problem)

    key_id: uuid.UUID
    problem: str

    def describe(self) -> str:
        return f"key {self.key_id}: {self.problem}"


class SealBroken(EncryptionError):
    """An encrypted payload that was altered, or that belongs to another event or snapshot."""

    def __init__(self, place: str, part: str) -> None:
        super().__init__(place=place, part=part)

    place: str
    """Which event or snapshot."""
    part: str
    """``data`` or ``metadata``."""

    def describe(self) -> str:
        return f"the {self.part} of {self.place} was altered, or was encrypted for another place"


class StoreClosed(HeadwaterError):
    """The store was closed before the call, or while it waited."""

    def describe(self) -> str:
        return "the store is closed"


class StoreUnavailable(HeadwaterError):
    """The database did not answer, or the connection broke before anything was committed."""

    retry_safe = True

    def __init__(self, problem: str, sqlstate: str | None = None) -> None:
        super().__init__(problem=problem, sqlstate=sqlstate)

    problem: str
    sqlstate: str | None

    def describe(self) -> str:
        return self.problem


class CommitUnknown(StoreUnavailable):
    """The connection broke while committing: appending the same events (same ids) again tells the outcome."""
