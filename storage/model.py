"""The values of the durable side: events, expected versions, filters, results.

Never does I/O and imports nothing but the standard library and orjson.
"""

from __future__ import annotations

import enum
import itertools
import os
import secrets
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, Protocol, Self, TypeAlias

import orjson

ALL: Final = "$all"
"""The name under which the store-wide order is read and subscribed to; nothing can be appended to it."""

MAX_NAME_BYTES: Final = 512
"""The longest stream, type, subscription or tag name, in UTF-8 bytes: index entries stay far below Postgres' limit."""

MAX_BIGINT: Final = 2**63 - 1
MAX_SESSION: Final = 2**31 - 1
"""The largest number of a session of the server."""
MAX_GATE: Final = 2**31 - 1
"""The largest number of a gate."""


class Gate(NamedTuple):
    """Where the next append of a session of the server can be waited for."""

    session: int
    number: int


class ExpectedVersion(enum.Enum):
    """What an append may expect of its stream when it does not name an exact version."""

    ANY = "any"
    """No check: the events go to the end, whatever is there."""
    NO_STREAM = "no_stream"
    """The stream has no events: it is missing, or empty."""
    STREAM_EXISTS = "stream_exists"
    """The stream is there, with or without events."""

    def __repr__(self) -> str:
        return self.name


ANY: Final = ExpectedVersion.ANY
NO_STREAM: Final = ExpectedVersion.NO_STREAM
STREAM_EXISTS: Final = ExpectedVersion.STREAM_EXISTS

Expected: TypeAlias = int | ExpectedVersion
"""An append's precondition: an exact version (0 means "no events yet"), or one of the three modes."""


def new_event_id() -> uuid.UUID:
    """Make an event id: a version 7 UUID (RFC 9562), which keeps the index on ids local in time.

    Unique, and not a secret: what follows the time is a number that counts up from where chance put it in this process
    (RFC 9562, section 6.2), so that a process' ids of one millisecond sort as they were made.
    """
    # What uuid.UUID(int=...) makes, without the looks at its other arguments: this is done for every event.
    made = _new_object(_UUID)
    _set_int(made, _time_ns() // 1_000_000 << 80 | _next_number())
    _set_is_safe(made, _SAFETY_UNKNOWN)
    return made


_UUID: Final = uuid.UUID
_new_object: Final = object.__new__
_set_int: Final = vars(uuid.UUID)["int"].__set__
_set_is_safe: Final = vars(uuid.UUID)["is_safe"].__set__
_SAFETY_UNKNOWN: Final = uuid.SafeUUID.unknown
_time_ns: Final = time.time_ns


def _numbers() -> Callable[[], int]:
    # The version, 12 random bits, the variant and 61 more: one bit is left for counting up.
    first = 0x7 << 76 | secrets.randbits(12) << 64 | 0x2 << 62 | secrets.randbits(61)
    return itertools.count(first).__next__


def _begin_anew() -> None:
    global _next_number
    _next_number = _numbers()


_next_number = _numbers()
# A forked process must not make its parent's ids again.
os.register_at_fork(after_in_child=_begin_anew)


class _NewEventFields(NamedTuple):
    """The fields of a new event, in the order in which they are encoded."""

    type: str
    """What happened, in the past tense: ``"OrderPlaced"``. Empty: what the payload's class is called, or registered
    as."""
    data: Any
    """The payload: whatever the store's codec can encode (JSON values by default), or an instance of a dataclass or
    pydantic model."""
    metadata: Mapping[str, Any] | None
    """What is known about the event but is not part of the fact: user, request, source."""
    id: uuid.UUID
    """Unique in the store. The same ids at the same place again return the first result."""
    causation_id: uuid.UUID | None
    """The id of the event or command that caused this one."""
    correlation_id: uuid.UUID | None
    """The id that everything of one conversation shares."""
    tags: Sequence[str]
    """Words to find the event by, across streams: ``("customer:42",)``."""
    schema_version: int
    """Which shape of this type the payload has; upcasters lift old shapes when events are read."""
    subject: str | None
    """Whose data the payload is: it is encrypted under this subject's key, until the subject is forgotten."""


class NewEvent(_NewEventFields):
    """An event that is not stored yet: immutable, and a tuple of its fields, as that is the cheapest to make.

    The id is chosen here, so that an append can be sent again safely.
    """

    __slots__ = ()

    def __new__(
        cls,
        type: str = "",  # a field's name
        data: Any = None,
        metadata: Mapping[str, Any] | None = None,
        id: uuid.UUID | None = None,
        causation_id: uuid.UUID | None = None,
        correlation_id: uuid.UUID | None = None,
        tags: Sequence[str] = (),
        schema_version: int = 1,
        subject: str | None = None,
    ) -> Self:
        """Make an event; without an id it gets a new one."""
        if id is None:
            id = new_event_id()
        return _new_tuple(cls, (type, data, metadata, id, causation_id, correlation_id, tags, schema_version, subject))


_new_tuple: Final = tuple.__new__


class Erased(enum.Enum):
    """What stands in place of a payload whose key was destroyed, unless the store's encryption says otherwise."""

    ERASED = "erased"

    def __repr__(self) -> str:
        return self.name


ERASED: Final = Erased.ERASED


class EventRow(NamedTuple):
    """The columns of a stored event, in the order in which every read gives them."""

    position: int
    """Place in the store-wide order, from 1, gapless."""
    version: int
    """Place within ``stream``, from 1."""
    raw_id: bytes
    """The id as stored: 16 bytes, until somebody looks at it."""
    type: str
    raw_data: Any
    """The payload as stored: bytes, until somebody looks at it."""
    raw_metadata: Any
    raw_causation_id: bytes | None
    raw_correlation_id: bytes | None
    created_at: datetime
    """When, by the server's clock: never falls as positions rise, unless an import set it."""
    raw_tags: Sequence[str] | None
    schema_version: int
    stream: str
    """The stream the event was written to, also when it is read through a link."""
    number: int
    """Place in what is being read: the version, the link's version, or the position."""


class RecordedEvent(EventRow):
    """A stored event. Immutable, picklable, and cheap to make: the row as it came from the database.

    Ids, ``data`` and ``metadata`` are decoded each time they are asked for; keep what you use twice.
    """

    __slots__ = ()

    def __new__(
        cls,
        position: int,
        stream: str,
        version: int,
        number: int,
        id: uuid.UUID,
        type: str,
        raw_data: Any,
        raw_metadata: Any,
        causation_id: uuid.UUID | None,
        correlation_id: uuid.UUID | None,
        created_at: datetime,
        raw_tags: Sequence[str] | None,
        schema_version: int,
    ) -> Self:
        """Make an event of what it shows; ``_make`` makes one of a row."""
        ids = (_id_bytes(causation_id), _id_bytes(correlation_id))
        payloads = (raw_data, raw_metadata)
        return cls._make(
            (position, version, id.bytes, type, *payloads, *ids, created_at, raw_tags, schema_version, stream, number)
        )

    @property
    def id(self) -> uuid.UUID:
        """Unique in the store; chosen by whoever appended the event."""
        return _uuid(self.raw_id)

    @property
    def causation_id(self) -> uuid.UUID | None:
        """The id of the event or command that caused this one."""
        return None if self.raw_causation_id is None else _uuid(self.raw_causation_id)

    @property
    def correlation_id(self) -> uuid.UUID | None:
        """The id that everything of one conversation shares."""
        return None if self.raw_correlation_id is None else _uuid(self.raw_correlation_id)

    @property
    def data(self) -> Any:
        """The payload, decoded."""
        return orjson.loads(self.raw_data)

    @property
    def metadata(self) -> Any:
        """The metadata, decoded; None when there is none."""
        return None if self.raw_metadata is None else orjson.loads(self.raw_metadata)

    @property
    def object(self) -> Any:
        """The payload as an instance of the class that its type is registered for; ``data`` when there is none."""
        return self.data

    @property
    def erased(self) -> bool:
        """Whether the key of the payload was destroyed: its subject is forgotten."""
        return False

    @property
    def tags(self) -> tuple[str, ...]:
        """The words the event can be found by, across streams."""
        return tuple(self.raw_tags or ())

    def __repr__(self) -> str:
        return f"<{self.type} {self.stream}@{self.version} position={self.position} id={self.id}>"

    def _replace(self, **fields: Any) -> Self:
        for name in _IDS & fields.keys():
            fields[f"raw_{name}"] = _id_bytes(fields.pop(name))
        return super()._replace(**fields)

    def __reduce__(self) -> Any:
        return RecordedEvent._make, (tuple(self),)


_IDS: Final = frozenset({"id", "causation_id", "correlation_id"})
_int_from_bytes: Final = int.from_bytes


def _uuid(raw: bytes) -> uuid.UUID:
    # What UUID(bytes=raw) makes, without its looks at its other arguments: for less than half of the time.
    made = _new_object(_UUID)
    _set_int(made, _int_from_bytes(raw))
    _set_is_safe(made, _SAFETY_UNKNOWN)
    return made


def _id_bytes(id: uuid.UUID | None) -> bytes | None:
    return None if id is None else id.bytes


class View(Protocol):
    """How the payload of an event is seen that is more than plain JSON."""

    @property
    def erased(self) -> bool: ...

    def shape(self, event: RecordedEvent) -> tuple[str, int]:
        """Return the type and the schema version of what ``data`` shows."""
        ...

    def data(self, event: RecordedEvent) -> Any: ...

    def metadata(self, event: RecordedEvent) -> Any: ...

    def object(self, event: RecordedEvent) -> Any: ...


class ViewedEvent(RecordedEvent):
    """A recorded event of a store with event types, encryption or a codec of its own.

    The row is as stored; what it shows is found out when it is looked at, and may raise UpcastingFailed,
    EncodingFailed or EncryptionError then. A pickled one carries what it shows.
    """

    view: View

    @classmethod
    def of(cls, event: RecordedEvent, view: View) -> ViewedEvent:
        """Return the event, seen this way."""
        made = tuple.__new__(cls, event)
        made.view = view
        return made

    @property
    def type(self) -> str:
        """What happened, under its present name."""
        return self.view.shape(self)[0]

    @property
    def schema_version(self) -> int:
        """Which shape ``data`` has: the newest."""
        return self.view.shape(self)[1]

    @property
    def data(self) -> Any:
        """The payload: decrypted, decoded, and lifted to the newest shape."""
        return self.view.data(self)

    @property
    def metadata(self) -> Any:
        """The metadata, decrypted and decoded; None when there is none."""
        return self.view.metadata(self)

    @property
    def object(self) -> Any:
        """The payload as an instance of the class that its type is registered for; ``data`` when there is none."""
        return self.view.object(self)

    @property
    def erased(self) -> bool:
        """Whether the key of the payload was destroyed: its subject is forgotten."""
        return self.view.erased

    def _replace(self, **fields: Any) -> ViewedEvent:
        return ViewedEvent.of(super()._replace(**fields), self.view)

    def __reduce__(self) -> Any:
        seen = Seen(self.view.shape(self), self.data, self.metadata, self.object, self.erased)
        return _seen_again, (tuple(self), seen)


@dataclass(frozen=True, slots=True)
class Seen:
    """What an event has shown: the view of one that was pickled."""

    _shape: tuple[str, int]
    _data: Any
    _metadata: Any
    _object: Any
    erased: bool

    def shape(self, event: RecordedEvent) -> tuple[str, int]:  # noqa: ARG002  # any event: there is only the one
        return self._shape

    def data(self, event: RecordedEvent) -> Any:  # noqa: ARG002
        return self._data

    def metadata(self, event: RecordedEvent) -> Any:  # noqa: ARG002
        return self._metadata

    def object(self, event: RecordedEvent) -> Any:  # noqa: ARG002
        return self._object


def _seen_again(row: tuple[Any, ...], seen: Seen) -> ViewedEvent:
    return ViewedEvent.of(RecordedEvent._make(row), seen)


class AppendResult(NamedTuple):
    """Where the events of one append came to stand."""

    stream: str
    first_version: int
    last_version: int
    first_position: int
    last_position: int
    """The store-wide position of the last event: what to wait for to read one's own write."""
    repeated: bool = False
    """True when the same event ids stood here already and nothing was written now."""


class StreamAppend(NamedTuple):
    """One stream's part of an append to several streams."""

    stream: str
    events: Sequence[NewEvent]
    expected_version: Expected = ANY


class ImportedEvent(NamedTuple):
    """An event of an import: where it belongs and when it happened."""

    stream: str
    event: NewEvent
    created_at: datetime | None = None
    """None: the time of the import."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which events a read returns; applied by the server. Empty fields do not restrict; fields are ANDed."""

    types: tuple[str, ...] = ()
    """Event types, any of them."""
    categories: tuple[str, ...] = ()
    """Stream categories (the part of the name before the first ``-``), any of them."""
    stream_prefix: str | None = None
    """How the stream's name begins; taken literally."""
    streams: tuple[str, ...] = ()
    """Stream names, any of them."""
    tags: tuple[str, ...] = ()
    """Tags, all of them."""
    since: datetime | None = None
    """Created at or after this time."""
    until: datetime | None = None
    """Created before this time."""

    def __bool__(self) -> bool:
        return bool(self.types or self.categories or self.stream_prefix or self.streams or self.tags) or not (
            self.since is None and self.until is None
        )


EVERYTHING: Final = Filter()


@dataclass(frozen=True, slots=True)
class AppendCondition:
    """What must not have happened for an append to be written: a decision's own consistency boundary."""

    where: Filter
    """The events that the decision depended on: by types, tags and streams (not by time)."""
    after: int
    """The position up to which they were read; one that matches after it spoils the append."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """A run of events of one source, and how far the read looked."""

    events: Sequence[RecordedEvent]
    read_to: int
    """Everything of the source up to this number was looked at: the next read starts after it."""
    head: int
    """The source's highest number when the page was read; ``read_to == head`` means caught up."""
    stream_id: int | None = None
    """The incarnation of the stream that was read, when there is one; None for ``ALL``."""
    absent: Literal["deleted", "missing"] | None = None
    """Why nothing is read of a stream: it is soft-deleted, or not there (any more)."""


StreamStatus: TypeAlias = Literal["active", "deleted"]


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What is known about one stream. For ALL: the id is 0 and the version is the head."""

    name: str
    stream_id: int
    """Unique for each incarnation: a stream that is created again after a hard delete has a new one."""
    version: int
    status: StreamStatus
    created_at: datetime | None
    deleted_at: datetime | None
    truncated_before: int = 1
    """The lowest version that is still readable."""


@dataclass(frozen=True, slots=True)
class StreamPage:
    """One page of the list of streams."""

    entries: Sequence[StreamInfo]
    page_number: int
    page_size: int
    total_entries: int
    total_pages: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A saved state of a source at a version."""

    source: str
    version: int
    type: str
    data: Any
    metadata: Mapping[str, Any] | None = None
    created_at: datetime | None = None
    schema_version: int = 1
    """Which shape of this type the state has; upcasters lift old shapes when it is read."""
    subject: str | None = None
    """Whose data it is: encrypted under this subject's key. Not told when it is read."""


def category_of(stream: str) -> str:
    """Return the part of a stream's name before the first ``-`` (the whole name when there is none)."""
    return stream.partition("-")[0]
