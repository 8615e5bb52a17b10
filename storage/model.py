"""The values of the durable side: events, expected versions, filters, results.

Never does I/O and imports nothing but the standard library and orjson.
"""

from __future__ import annotations

import enum
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import orjson

ALL: Final = "$all"
"""The name under which the store-wide order is read and subscribed to; nothing can be appended to it."""

MAX_NAME_BYTES: Final = 512
"""The longest stream, type, subscription or tag name, in UTF-8 bytes: index entries stay far below Postgres' limit."""

MAX_BIGINT: Final = 2**63 - 1


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
    """Make an event id: a version 7 UUID (RFC 9562), which keeps the index on ids local in time."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that is not stored yet. The id is chosen here, so that an append can be sent again safely."""

    type: str
    """What happened, in the past tense: ``"OrderPlaced"``."""
    data: Any = None
    """The payload: whatever the store's codec can encode (JSON values by default)."""
    metadata: Mapping[str, Any] | None = None
    """What is known about the event but is not part of the fact: user, request, source."""
    id: uuid.UUID = field(default_factory=new_event_id)
    """Unique in the store. The same ids at the same place again return the first result."""
    causation_id: uuid.UUID | None = None
    """The id of the event or command that caused this one."""
    correlation_id: uuid.UUID | None = None
    """The id that everything of one conversation shares."""
    tags: Sequence[str] = ()
    """Words to find the event by, across streams: ``("customer:42",)``."""
    schema_version: int = 1
    """Which shape of this type the payload has; upcasters lift old shapes when events are read."""


class EventRow(NamedTuple):
    """The columns of a stored event, in the order in which every read selects them."""

    position: int
    """Place in the store-wide order, from 1, gapless."""
    stream: str
    """The stream the event was written to, also when it is read through a link."""
    version: int
    """Place within ``stream``, from 1."""
    number: int
    """Place in what is being read: the version, the link's version, or the position."""
    id: uuid.UUID
    type: str
    raw_data: Any
    """The payload as stored: bytes, until somebody looks at it."""
    raw_metadata: Any
    causation_id: uuid.UUID | None
    correlation_id: uuid.UUID | None
    created_at: datetime
    """When, by the server's clock: never falls as positions rise, unless an import set it."""
    raw_tags: Sequence[str] | None
    schema_version: int


class RecordedEvent(EventRow):
    """A stored event. Immutable, picklable, and cheap to make: the row as it came from the database.

    ``data`` and ``metadata`` are decoded each time they are asked for; keep what you use twice.
    """

    __slots__ = ()

    @property
    def data(self) -> Any:
        """The payload, decoded."""
        return orjson.loads(self.raw_data)

    @property
    def metadata(self) -> Any:
        """The metadata, decoded; None when there is none."""
        return None if self.raw_metadata is None else orjson.loads(self.raw_metadata)

    @property
    def tags(self) -> tuple[str, ...]:
        """The words the event can be found by, across streams."""
        return tuple(self.raw_tags or ())

    def __repr__(self) -> str:
        return f"<{self.type} {self.stream}@{self.version} position={self.position} id={self.id}>"


class DecodedEvent(RecordedEvent):
    """A recorded event of a store whose codec is not plain JSON: payloads were decoded when it was read."""

    __slots__ = ()

    @property
    def data(self) -> Any:
        """The payload, as the store's codec decoded it."""
        return self.raw_data

    @property
    def metadata(self) -> Any:
        """The metadata, as the store's codec decoded it."""
        return self.raw_metadata


@dataclass(frozen=True, slots=True)
class AppendResult:
    """Where the events of one append came to stand."""

    stream: str
    first_version: int
    last_version: int
    first_position: int
    last_position: int
    """The store-wide position of the last event: what to wait for to read one's own write."""
    repeated: bool = False
    """True when the same event ids stood here already and nothing was written now."""


@dataclass(frozen=True, slots=True)
class StreamAppend:
    """One stream's part of an append to several streams."""

    stream: str
    events: Sequence[NewEvent]
    expected_version: Expected = ANY


@dataclass(frozen=True, slots=True)
class ImportedEvent:
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


def category_of(stream: str) -> str:
    """Return the part of a stream's name before the first ``-`` (the whole name when there is none)."""
    return stream.partition("-")[0]
