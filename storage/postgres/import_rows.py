"""The rows of an import in COPY's binary format, made by joining bytes.

Knows the wire format (PostgreSQL manual, "COPY", "Binary Format") and does no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, groupby, repeat
from typing import Final

from headwater.storage.checks import check_created_at, check_target
from headwater.storage.errors import InvalidArgument
from headwater.storage.model import ANY, ImportedEvent
from headwater.storage.postgres.arrays import (
    NULL_PART,
    IntegerArray,
    TextArray,
    TimestamptzArray,
    bytes_part,
    text_part,
    time_part,
)
from headwater.storage.postgres.encoding import EncodedAppend, Encoder, Parts, Unit

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + b"\0" * 8
TRAILER: Final = b"\xff\xff"

_BIGINT: Final = b"\0\0\0\x08"
# As numbers, to which the position or version is added, so that all becomes bytes at once.
_EVENT_FIELDS: Final = 12  # position, stream, version, id, type, data, time; metadata and what follows it
_POSITION_AFTER_FIELDS: Final = _EVENT_FIELDS << 96 | 8 << 64
_VERSION_LENGTH: Final = 8 << 64
_TAG_FIELDS: Final = b"\0\x02"
_VERSION_1: Final = b"\0\0\0\x02\0\x01"


@dataclass(frozen=True, slots=True)
class Slice:
    """Some events of a batch in their order: nothing but encoded columns, the events themselves are let go."""

    size: int
    runs: Sequence[tuple[str, int]]
    """The streams in turn, with how many events of it follow."""
    parts: Parts
    tags: Sequence[Sequence[str]] | None
    """None: no event has tags."""
    times: Sequence[bytes] | None
    """None: no event brings a time."""

    def units(self) -> Iterator[Unit]:
        """Yield what the append function can take instead: each run by itself."""
        done = 0
        for stream, count in self.runs:
            part = slice(done, done + count)
            columns = [None if column is None else b"".join(column[part]) for column in (*self.parts, self.times)]
            yield Unit.of([EncodedAppend(stream, ANY, count, columns)])
            done += count


@dataclass(slots=True)
class ImportBatch:
    """Events that are written in one transaction, encoded."""

    slices: list[Slice] = field(default_factory=list)
    size: int = 0
    streams: dict[str, int] = field(default_factory=dict)
    """How many events each stream gets."""
    firsts: list[int] = field(default_factory=list)
    """The place in the batch, from 1, of each stream's first event."""

    def add(self, encoder: Encoder, events: Sequence[ImportedEvent]) -> None:
        """Check and encode further events. Raises what append raises for the same events."""
        if set(map(type, events)) != {ImportedEvent}:
            odd = next(event for event in events if type(event) is not ImportedEvent)
            raise InvalidArgument("events", f"must yield ImportedEvent, not {type(odd).__name__}")
        streams, new, created = zip(*events, strict=True)
        runs = []
        for stream, run in groupby(streams):
            count = len(list(run))
            if check_target(stream, "append to") not in self.streams:
                self.streams[stream] = 0
                self.firsts.append(self.size + 1)
            self.streams[stream] += count
            self.size += count
            runs.append((stream, count))
        parts = encoder.parts(runs[0][0], new)
        tags = None if parts[6] is None else [event.tags for event in new]
        self.slices.append(Slice(len(events), runs, parts, tags, _times(created)))

    def parameters(self) -> list[object]:
        """Return the parameters of the call that gives out versions and positions."""
        times = None
        if any(piece.times is not None for piece in self.slices):
            every = chain.from_iterable(piece.times or repeat(NULL_PART, piece.size) for piece in self.slices)
            times = TimestamptzArray.of_wire(b"".join(every), self.size)
        return [
            TextArray.of(self.streams),
            IntegerArray.of(list(self.streams.values())),
            IntegerArray.of(self.firsts),
            self.size,
            times,
        ]


def event_rows(piece: Slice, position: int, versions: dict[str, int], now: datetime) -> bytes:
    """Return the rows of a slice after ``position``; ``versions``, the streams' last ones, go along."""
    count = piece.size
    first = _POSITION_AFTER_FIELDS + position + 1
    positions = [n.to_bytes(14) for n in range(first, first + count)]
    places: list[bytes] = []
    for stream, more in piece.runs:
        before = versions[stream]
        versions[stream] = before + more
        head = text_part(stream)
        first = _VERSION_LENGTH + before + 1
        places += [head + version.to_bytes(12) for version in range(first, first + more)]
    ids, types, data, *rest = piece.parts
    assert ids is not None
    assert types is not None
    assert data is not None
    present = time_part(now)
    times: Iterable[bytes] = repeat(present, count)
    if piece.times is not None:
        times = [present if part is NULL_PART else part for part in piece.times]
    return b"".join(
        chain.from_iterable(zip(positions, places, ids, types, data, times, *_rest(piece, rest), strict=True))
    )


def _rest(piece: Slice, rest: Sequence[Sequence[bytes] | None]) -> list[Iterable[bytes]]:
    """Return the columns that are mostly null: one constant when they are."""
    count = piece.size
    if all(column is None for column in rest):
        return [repeat(NULL_PART * 4 + _VERSION_1, count)]
    *ids, _, schema_versions = rest
    columns: list[Iterable[bytes]] = [repeat(NULL_PART, count) if column is None else column for column in ids]
    columns.append(repeat(NULL_PART, count) if piece.tags is None else map(_tags, piece.tags))
    if schema_versions is None:
        columns.append(repeat(_VERSION_1, count))
    else:
        columns.append([b"\0\0\0\x02" + part[-2:] for part in schema_versions])
    return columns


def tag_rows(piece: Slice, position: int) -> bytes:
    """Return a row for each tag of each event of a slice after ``position``."""
    return b"".join(
        _TAG_FIELDS + text_part(tag) + _BIGINT + number.to_bytes(8)
        for number, tags in enumerate(piece.tags or (), position + 1)
        for tag in dict.fromkeys(tags)
    )


def _tags(tags: Sequence[str]) -> bytes:
    return bytes_part(TextArray.of(dict.fromkeys(tags)).wire) if tags else NULL_PART


def _times(times: Sequence[datetime | None]) -> Sequence[bytes] | None:
    if times.count(None) == len(times):
        return None
    return [NULL_PART if each is None else time_part(check_created_at("created_at", each)) for each in times]
