"""The handlers that are measured: they run in the cluster's processes and note what they got, where all can see it.

Each consumer keeps one small file, rewritten in place: that costs two microseconds a delivery, and counts independently
of what the subscription says of itself.
"""

from __future__ import annotations

import functools
import itertools
import os
import struct
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from headwater.storage.model import EventPage, RecordedEvent
from headwater.storage.postgres import reading
from headwater.subscriptions.handler import Context

FOLDER: Final = "HEADWATER_BENCH_FOLDER"
"""The environment variable that says where the notes go; set before the cluster starts."""

WORK: Final = 30_000

_NOTE: Final = struct.Struct("<ddq")
_LATENCY: Final = struct.Struct("<d")
_READS: Final = struct.Struct("<q")

_UPSERT: Final = """
INSERT INTO "read_model" ("subscription", "stream", "version", "customer")
SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::text[])
ON CONFLICT ("subscription", "stream", "version") DO UPDATE SET "customer" = excluded."customer"
"""


class Note(NamedTuple):
    """What one consumer, or all of a subscription, got: when the first and the last came, and how many in all."""

    first: float
    last: float
    events: int


def _file(context: Context, kind: str) -> int:
    # Also a consumer that was started again has a file of its own.
    name = f"{context.subscription}.{context.partition}.{context.consumer}.{os.getpid()}.{kind}"
    return os.open(Path(os.environ.get(FOLDER, tempfile.gettempdir())) / name, os.O_RDWR | os.O_CREAT)


class Count:
    """Counts what it gets."""

    def __init__(self) -> None:
        self._note: Note | None = None
        self._file = -1

    async def handle(self, events: Sequence[RecordedEvent], context: Context) -> None:
        """Note the delivery."""
        self._write(len(events), context)

    def _write(self, number: int, context: Context) -> None:
        now = time.monotonic()
        if self._note is None:
            self._file = _file(context, "count")
            self._note = Note(now, now, 0)
        self._note = Note(self._note.first, now, self._note.events + number)
        os.pwrite(self._file, _NOTE.pack(*self._note), 0)

    def stop(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)


class CountReads(Count):
    """Also counts how often its process, which is that of the owner, reads events from the database."""

    def __init__(self) -> None:
        super().__init__()
        _count_reads()


@functools.cache
def _count_reads() -> None:
    """Count what the store's two ways of reading a page are called for; once in a process, however many handlers."""
    name = f"{os.getpid()}.reads"
    file = os.open(Path(os.environ.get(FOLDER, tempfile.gettempdir())) / name, os.O_RDWR | os.O_CREAT)
    numbers = itertools.count(1)

    def counting(read: Callable[..., Awaitable[EventPage]]) -> Callable[..., Awaitable[EventPage]]:
        async def counted(*arguments: Any) -> EventPage:
            os.pwrite(file, _READS.pack(next(numbers)), 0)
            return await read(*arguments)

        return counted

    for way in ("read_page", "page_behind"):
        setattr(reading, way, counting(getattr(reading, way)))


class Work(Count):
    """Keeps the processor busy for about half a millisecond an event."""

    async def handle(self, events: Sequence[RecordedEvent], context: Context) -> None:
        """Work, then note the delivery."""
        for _ in events:
            sum(range(WORK))
        self._write(len(events), context)


class Upsert(Count):
    """Writes one row for each event in the transaction that saves the checkpoint."""

    async def handle(self, events: Sequence[RecordedEvent], context: Context) -> None:
        """Upsert a batch by one statement."""
        columns = (
            [context.subscription] * len(events),
            [event.stream for event in events],
            [event.version for event in events],
            [event.data["customer"] for event in events],
        )
        await context.transaction.execute(_UPSERT, columns)
        self._write(len(events), context)


class Latency(Count):
    """Notes how long ago each event's append was called: the time stands in the event."""

    def __init__(self) -> None:
        super().__init__()
        self._latencies = -1

    async def handle(self, events: Sequence[RecordedEvent], context: Context) -> None:
        """Note the latencies."""
        now = time.monotonic()
        if self._latencies < 0:
            self._latencies = _file(context, "latency")
        os.write(self._latencies, b"".join([_LATENCY.pack(now - event.data["called"]) for event in events]))
        self._write(len(events), context)


def read_notes(folder: Path, subscription: str) -> dict[int, Note]:
    """Return what the consumers of a subscription noted, by their processes."""
    notes: dict[int, Note] = {}
    for path in folder.glob(f"{subscription}.*.count"):
        raw = path.read_bytes()
        if len(raw) == _NOTE.size:  # not while it is being made
            notes[int(path.name.split(".")[3])] = Note._make(_NOTE.unpack(raw))
    return notes


def read_note(folder: Path, subscription: str) -> Note | None:
    """Put together what all consumers of a subscription noted; None while nobody got anything."""
    notes = read_notes(folder, subscription).values()
    if not notes:
        return None
    return Note(min(n.first for n in notes), max(n.last for n in notes), sum(n.events for n in notes))


def read_reads(folder: Path) -> int:
    """Return how often all processes together have read events from the database."""
    return sum(_READS.unpack(raw)[0] for path in folder.glob("*.reads") if len(raw := path.read_bytes()) == _READS.size)


def read_latencies(folder: Path, subscription: str) -> list[float]:
    """Return the latencies that all consumers of a subscription noted, in seconds."""
    raw = b"".join(path.read_bytes() for path in folder.glob(f"{subscription}.*.latency"))
    return [value for (value,) in _LATENCY.iter_unpack(raw)]
