"""What a store holds, as plain values: streams, events, links, snapshots and the head.

Never checks a caller's arguments and never waits. A change is checked as a whole before anything of it is made.
"""

from __future__ import annotations

import uuid
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from headwater.storage.errors import SnapshotNotFound, StreamDeleted, StreamNotFound
from headwater.storage.model import ALL, RecordedEvent, Snapshot, StreamInfo

_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class Numbered:
    """Events in the order of their numbers: each number, and the position of the event that it stands for."""

    numbers: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    def add(self, number: int, position: int) -> None:
        """Put an event behind all others."""
        self.numbers.append(number)
        self.positions.append(position)

    def keep(self, wanted: Callable[[int, int], bool]) -> None:
        """Drop what is not wanted; the others keep their numbers."""
        kept = [(n, p) for n, p in zip(self.numbers, self.positions, strict=True) if wanted(n, p)]
        self.numbers, self.positions = [n for n, _ in kept], [p for _, p in kept]

    def run(self, start: int | None, limit: int, backward: bool) -> Iterable[tuple[int, int]]:
        """Return up to ``limit`` numbers and positions from ``start`` (inclusive) on."""
        if backward:
            end = len(self.numbers) if start is None else bisect_right(self.numbers, start)
            part = slice(max(end - limit, 0), end)
        else:
            first = 0 if start is None else bisect_left(self.numbers, start)
            part = slice(first, first + limit)
        pairs = list(zip(self.numbers[part], self.positions[part], strict=True))
        return reversed(pairs) if backward else pairs

    def copy(self) -> Numbered:
        """Return one that can be changed by itself."""
        return Numbered(self.numbers.copy(), self.positions.copy())


@dataclass(slots=True)
class Stream:
    """One stream: its own events and its links."""

    name: str
    stream_id: int
    created_at: datetime
    version: int = 0
    truncated_before: int = 1
    deleted_at: datetime | None = None
    events: Numbered = field(default_factory=Numbered)

    def info(self) -> StreamInfo:
        """Describe it."""
        return StreamInfo(
            self.name,
            self.stream_id,
            self.version,
            "active" if self.deleted_at is None else "deleted",
            self.created_at,
            self.deleted_at,
            self.truncated_before,
        )


@dataclass(slots=True)
class State:
    """Everything that is stored.

    1. Positions rise by one for each event, in the order of appends; only a removal leaves a hole.
    2. ``events``, ``by_id`` and ``order`` hold the same events.
    """

    made_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    head: int = 0
    head_time: datetime = _BEGINNING
    last_stream_id: int = 0
    streams: dict[str, Stream] = field(default_factory=dict)
    events: dict[int, RecordedEvent] = field(default_factory=dict)
    by_id: dict[uuid.UUID, RecordedEvent] = field(default_factory=dict)
    order: Numbered = field(default_factory=Numbered)
    snapshots: dict[str, dict[int, Snapshot]] = field(default_factory=dict)

    def copy(self) -> State:
        """Return one that can be changed by itself."""
        return replace(
            self,
            streams={name: replace(stream, events=stream.events.copy()) for name, stream in self.streams.items()},
            events=self.events.copy(),
            by_id=self.by_id.copy(),
            order=self.order.copy(),
            snapshots={source: saved.copy() for source, saved in self.snapshots.items()},
        )

    def live(self, name: str) -> Stream:
        """Return a stream that can be read. Raises StreamNotFound, StreamDeleted."""
        stream = self.streams.get(name)
        if stream is None:
            raise StreamNotFound(name)
        if stream.deleted_at is not None:
            raise StreamDeleted(name)
        return stream

    def all_info(self) -> StreamInfo:
        """Describe ALL."""
        return StreamInfo(ALL, 0, self.head, "active", self.made_at, None)

    def open_stream(self, name: str, created_at: datetime) -> Stream:
        """Return the stream, made when it is missing."""
        if name not in self.streams:
            self.last_stream_id += 1
            self.streams[name] = Stream(name, self.last_stream_id, created_at)
        return self.streams[name]

    def add(self, event: RecordedEvent) -> None:
        """Put an event at the head and at the end of its stream."""
        self.head = event.position
        self.events[event.position] = self.by_id[event.id] = event
        self.order.add(event.position, event.position)
        stream = self.streams[event.stream]
        stream.version = event.version
        stream.events.add(event.version, event.position)

    def read(self, name: str, start: int | None, limit: int, backward: bool) -> list[RecordedEvent]:
        """Return a run of a stream's events, or of ALL, each under its number there."""
        source = self.order if name == ALL else self.live(name).events
        return [
            self.events[position]._replace(number=number) for number, position in source.run(start, limit, backward)
        ]

    def remove_events(self, name: str, before: int | None) -> int:
        """Remove a stream's own events below a version (all of them for None) and every link to them."""
        gone = {
            event.position: event
            for event in self.events.values()
            if event.stream == name and (before is None or event.version < before)
        }
        for position, event in gone.items():
            del self.events[position], self.by_id[event.id]
        self.order.keep(lambda _, position: position not in gone)
        for stream in self.streams.values():
            stream.events.keep(lambda _, position: position not in gone)
        return len(gone)

    def newest_snapshot(self, source: str, up_to: int) -> Snapshot:
        """Return the snapshot of the highest version up to one. Raises SnapshotNotFound."""
        versions = [version for version in self.snapshots.get(source, ()) if version <= up_to]
        if not versions:
            raise SnapshotNotFound(source)
        return self.snapshots[source][max(versions)]
