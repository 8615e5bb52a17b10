"""What handlers note of each delivery, in files that outlive their processes: one file for each process, append only.

A note is one write, so a process that is killed leaves whole notes, and at most one torn one at the end, which is never
read. Times are of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import os
import struct
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from headwater import Context, RecordedEvent

FOLDER: Final = "HEADWATER_CHAOS_JOURNAL"
"""The environment variable that says where the files are."""
STREAM: Final = "order-"
"""What the names of all streams begin with; a number follows."""

_HEADER: Final = struct.Struct("<16sHHIqdddq")
_file = -1


class Note(NamedTuple):
    """One delivery, as its handler saw it."""

    time: float
    subscription: str
    partition: int
    consumer: int
    epoch: int
    wall: float
    """What the process took for the time of day."""
    process: int
    positions: array[int]
    streams: array[int]
    begun: float
    """When the handler began; the time of the note itself is when it had got so far as to write it."""

    @property
    def owned(self) -> tuple[str, int]:
        """The subscription and its partition."""
        return self.subscription, self.partition


def write(events: Sequence[RecordedEvent], context: Context, begun: float) -> None:
    """Note a delivery that began then; called by the handler, in whatever process it runs."""
    global _file
    if _file < 0:
        name = f"{os.getpid()}-{time.monotonic_ns()}.journal"
        _file = os.open(Path(os.environ[FOLDER], name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    positions = array("q", [event.position for event in events])
    streams = array("q", [int(event.stream.removeprefix(STREAM)) for event in events])
    name16 = context.subscription.encode()
    place = (context.partition, context.consumer, len(positions), context.epoch)
    header = _HEADER.pack(name16, *place, time.monotonic(), time.time(), begun, os.getpid())
    os.write(_file, header + positions.tobytes() + streams.tobytes())


def parse(data: bytes) -> tuple[list[Note], int]:
    """Return the whole notes at the beginning of some bytes, and how many bytes they are."""
    notes, at = [], 0
    while at + _HEADER.size <= len(data):
        name, partition, consumer, count, epoch, now, wall, begun, process = _HEADER.unpack_from(data, at)
        end = at + _HEADER.size + 16 * count
        if end > len(data):
            break
        middle = end - 8 * count
        positions, streams = array("q", data[at + _HEADER.size : middle]), array("q", data[middle:end])
        subscription = name.rstrip(b"\0").decode()
        notes.append(Note(now, subscription, partition, consumer, epoch, wall, process, positions, streams, begun))
        at = end
    return notes, at


class Journal:
    """Reads the files of a folder as they grow."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, int] = {}

    def news(self) -> list[Note]:
        """Return what was noted since the last call."""
        found: list[Note] = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                begin = self._read.get(entry.name, 0)
                if entry.stat().st_size > begin:
                    with Path(entry.path).open("rb") as file:
                        file.seek(begin)
                        notes, length = parse(file.read())
                    self._read[entry.name] = begin + length
                    found += notes
        found.sort(key=lambda note: note.time)
        return found
