"""The files of an archive: for each range of positions one of compressed lines, and a manifest of what is in it.

Never replaces a file: what is written anew has another name. A range is read from its file block by block, each of
which can be unpacked by itself; ``zcat`` unpacks the whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import orjson

from headwater.storage.archive.lines import decode_event, encode_event
from headwater.storage.errors import ArchiveDamaged
from headwater.storage.model import RecordedEvent

FORMAT: Final = "headwater-archive-1"
_GZIP: Final = 31
"""The window size by which zlib writes and reads gzip members."""


@dataclass(frozen=True, slots=True)
class Block:
    """A run of events that is compressed by itself."""

    first_position: int
    last_position: int
    events: int
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in a file: stands beside it, as JSON."""

    schema: str
    payload: str
    """The column type of the payloads: ``json``, ``jsonb``, or ``bytea``, which is in base64."""
    first_position: int
    """The range that the file is of; the events in it may be fewer."""
    last_position: int
    events: int
    first_event: int | None
    last_event: int | None
    first_time: datetime | None
    """The earliest time of an event, and the latest."""
    last_time: datetime | None
    file: str
    bytes: int
    sha256: str
    """Of the file as it is."""
    content_sha256: str
    """Of the lines in it."""
    blocks: Sequence[Block] = field(repr=False)
    format: str = FORMAT


class ArchiveFolder:
    """The folder that holds an archive. It may be shared: files are complete when their names appear."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._manifests: dict[tuple[str, str], Manifest] = {}

    def __repr__(self) -> str:
        return f"<ArchiveFolder {self.path}>"

    def write(self, schema: str, payload: str, first_position: int, last_position: int) -> RangeWriter:
        """Begin to write a range; nothing of it is to be seen until it is finished."""
        self.path.mkdir(parents=True, exist_ok=True)
        return RangeWriter(self.path, schema, payload, first_position, last_position)

    def manifest(self, file: str, sha256: str) -> Manifest:
        """Return the manifest of a file, which must hash to what the database remembers. Raises ArchiveDamaged."""
        known = self._manifests.get((file, sha256))
        if known is not None:
            return known
        raw = self._bytes(manifest_name(file))
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise ArchiveDamaged(manifest_name(file), "is not the manifest that was written")
        fields: dict[str, Any] = orjson.loads(raw)
        if fields["format"] != FORMAT:
            raise ArchiveDamaged(manifest_name(file), f"has the format {fields['format']}, which is not known here")
        times = {name: _time(fields[name]) for name in ("first_time", "last_time")}
        manifest = Manifest(**fields | times | {"blocks": [Block(*block) for block in fields["blocks"]]})
        if len(self._manifests) >= 64:
            self._manifests.clear()
        self._manifests[file, sha256] = manifest
        return manifest

    def blocks(
        self, manifest: Manifest, low: int, high: int, *, backward: bool = False
    ) -> Iterator[tuple[Block, list[RecordedEvent]]]:
        """Unpack block after block with events of the positions ``low`` to ``high``. Raises ArchiveDamaged."""
        wanted = [block for block in manifest.blocks if block.last_position >= low and block.first_position <= high]
        if not wanted:
            return
        try:
            with (self.path / manifest.file).open("rb") as file:
                for block in reversed(wanted) if backward else wanted:
                    file.seek(block.offset)
                    events = _unpack(manifest, block, file.read(block.bytes))
                    yield block, events[::-1] if backward else events
        except OSError as error:
            raise ArchiveDamaged(manifest.file, str(error)) from error

    def verify(self, manifest: Manifest) -> None:
        """Read a whole file and compare all that its manifest says. Raises ArchiveDamaged."""
        whole, content, size, last = hashlib.sha256(), hashlib.sha256(), 0, 0
        try:
            with (self.path / manifest.file).open("rb") as file:
                for block in manifest.blocks:
                    raw = file.read(block.bytes)
                    whole.update(raw)
                    size += len(raw)
                    events = _unpack(manifest, block, raw)
                    if [event.position for event in events] != sorted({event.position for event in events}):
                        raise ArchiveDamaged(manifest.file, "its events are out of order")
                    if events[0].position <= last or not manifest.first_position <= events[0].position:
                        raise ArchiveDamaged(manifest.file, f"block at {block.offset} is out of order")
                    last = events[-1].position
                    content.update(b"".join([encode_event(e, binary=_is_binary(manifest)) for e in events]))
                rest = file.read(1)
        except OSError as error:
            raise ArchiveDamaged(manifest.file, str(error)) from error
        if rest or size != manifest.bytes or last > manifest.last_position:
            raise ArchiveDamaged(manifest.file, "is longer than what was written")
        if sum(block.events for block in manifest.blocks) != manifest.events:
            raise ArchiveDamaged(manifest.file, "holds another number of events than its manifest says")
        if (whole.hexdigest(), content.hexdigest()) != (manifest.sha256, manifest.content_sha256):
            raise ArchiveDamaged(manifest.file, "is not what was written: another sha256")

    def remove(self, file: str) -> None:
        """Remove a file that is no longer in use, and its manifest."""
        for name in (manifest_name(file), file):
            (self.path / name).unlink(missing_ok=True)

    def begin_replacing(self, file: str, new: str) -> None:
        """Put down on disk that a file has to go when another one has taken its place."""
        with self._note(new).open("wb") as note:
            note.write(file.encode())
            note.flush()
            os.fsync(note.fileno())
        _sync(self.path)

    def end_replacing(self, new: str) -> None:
        """Remove the file whose place another one has taken, unless that was done already."""
        try:
            file = self._note(new).read_text()
        except FileNotFoundError:
            return
        self.remove(file)
        self._note(new).unlink()

    def _note(self, new: str) -> Path:
        return self.path / f".{new}.replaces"

    def _bytes(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise ArchiveDamaged(name, f"cannot be read in {self.path}: {error.strerror}") from error


class RangeWriter:
    """Writes the file of one range. Use it as a context manager: what is not finished is removed.

    1. The file and its manifest have their names only when both are complete and on disk, the manifest last.
    2. The name has a part of the sha256 in it, so that no other content ever has it.
    """

    def __init__(self, folder: Path, schema: str, payload: str, first_position: int, last_position: int) -> None:
        self._folder = folder
        self._about = (schema, payload, first_position, last_position)
        self._binary = payload == "bytea"
        self._temporary = folder / f".writing-{secrets.token_hex(8)}"
        self._file = self._temporary.open("xb")
        self._whole, self._content = hashlib.sha256(), hashlib.sha256()
        self._blocks: list[Block] = []
        self._size = 0
        self._times: list[datetime] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self._temporary.unlink()

    def add(self, events: Sequence[RecordedEvent]) -> None:
        """Write a block of events, in the order of their positions."""
        if not events:
            return
        lines = b"".join([encode_event(event, binary=self._binary) for event in events])
        packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
        packed = packer.compress(lines) + packer.flush()
        self._file.write(packed)
        self._whole.update(packed)
        self._content.update(lines)
        self._blocks.append(Block(events[0].position, events[-1].position, len(events), self._size, len(packed)))
        self._size += len(packed)
        times = [event.created_at for event in events]
        self._times = [min([*self._times, *times]), max([*self._times, *times])]

    def finish(self) -> tuple[Manifest, str]:
        """Put the file and its manifest in their place; returns the manifest, and its sha256."""
        schema, payload, first, last = self._about
        sha256 = self._whole.hexdigest()
        # Exported twice, a range has the same lines; a part that is drawn keeps the two files apart nevertheless.
        name = f"{quote(schema, safe='')}-{first:019}-{last:019}-{sha256[:12]}-{secrets.token_hex(3)}.ndjson.gz"
        manifest = Manifest(
            schema=schema,
            payload=payload,
            first_position=first,
            last_position=last,
            events=sum(block.events for block in self._blocks),
            first_event=self._blocks[0].first_position if self._blocks else None,
            last_event=self._blocks[-1].last_position if self._blocks else None,
            first_time=self._times[0] if self._times else None,
            last_time=self._times[1] if self._times else None,
            file=name,
            bytes=self._size,
            sha256=sha256,
            content_sha256=self._content.hexdigest(),
            blocks=self._blocks,
        )
        raw = orjson.dumps(asdict(manifest) | {"blocks": [list(asdict(block).values()) for block in self._blocks]})
        self._file.flush()
        os.fsync(self._file.fileno())
        self._temporary.rename(self._folder / name)
        with self._temporary.open("xb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        self._temporary.rename(self._folder / manifest_name(name))
        _sync(self._folder)
        return manifest, hashlib.sha256(raw).hexdigest()


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def manifest_name(file: str) -> str:
    """Return the name of the manifest that stands beside a file."""
    return file.removesuffix(".ndjson.gz") + ".json"


def _unpack(manifest: Manifest, block: Block, raw: bytes) -> list[RecordedEvent]:
    try:
        lines = zlib.decompress(raw, _GZIP).splitlines(keepends=True)
        events = [decode_event(line, binary=_is_binary(manifest)) for line in lines]
    except (zlib.error, ValueError, KeyError) as error:
        raise ArchiveDamaged(manifest.file, f"block at {block.offset}: {error}") from error
    if len(events) != block.events or events[0].position != block.first_position:
        raise ArchiveDamaged(manifest.file, f"block at {block.offset} holds other events than its manifest says")
    return events


def _is_binary(manifest: Manifest) -> bool:
    return manifest.payload == "bytea"


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
