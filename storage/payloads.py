"""The payloads of one store: how they are made ready to be written, and how they are seen when they are read.

Puts the codec, the event types and the encryption together; a store of plain JSON goes past all of it. Never waits for
anything but keys.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Final, cast

from headwater.storage.checks import check_name, check_target
from headwater.storage.codec import JSON, Codec
from headwater.storage.encryption import envelope
from headwater.storage.encryption.keys import KeyStore
from headwater.storage.encryption.options import Encryption
from headwater.storage.encryption.ring import Handle, KeyRing
from headwater.storage.errors import ConfigurationError, EncodingFailed, InvalidArgument, SealBroken
from headwater.storage.event_types import EventTypes, Shape
from headwater.storage.model import (
    EventRow,
    ImportedEvent,
    NewEvent,
    RecordedEvent,
    Snapshot,
    StreamAppend,
    ViewedEvent,
)

_CHUNK: Final = 500
"""How many events of an import are made ready together."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A payload in its stored form."""

    raw: bytes


class ReadyCodec:
    """The codec of payloads that are made ready before: it lets nothing through that is not."""

    def encode(self, event_type: str, value: Any) -> bytes:
        """Return the stored form. Raises EncodingFailed."""
        if type(value) is not Ready:
            raise EncodingFailed(event_type, "it was not made ready to be stored")
        return value.raw

    def decode(self, event_type: str, raw: bytes) -> Any:  # noqa: ARG002
        """Return the stored form again."""
        return raw


class Payloads:
    """How one store writes and reads payloads.

    1. What has a subject is never written but encrypted under that subject's key.
    2. Events that are opened again show what their keys are then.
    """

    def __init__(
        self,
        keys: KeyStore,
        *,
        codec: Codec = JSON,
        types: EventTypes | None = None,
        encryption: Encryption | None = None,
        binary: bool = False,
    ) -> None:
        """``keys`` is the store's own key store; ``binary``: its payload columns are bytea."""
        self._codec = codec
        self._types = EventTypes() if types is None else types
        self._encryption = encryption
        self._binary = binary
        self._keys = keys if encryption is None or encryption.keys is None else encryption.keys
        self._ring = None if encryption is None else KeyRing(encryption, self._keys)
        self.as_given = types is None and encryption is None
        """Whether events are encoded as their callers give them: then there is nothing to prepare."""
        self._view = PayloadView(self, None)
        self.plain = self.as_given and codec is JSON
        """Whether stored payloads are JSON and nothing else: then there is nothing to open."""
        self.writing: Codec = codec if self.as_given else ReadyCodec()
        """What encodes events that went through ``prepare``."""

    def __repr__(self) -> str:
        return f"<Payloads {self._codec!r} {self._types!r} {'encrypted' if self._ring else 'not encrypted'}>"

    # Writing

    async def prepare(self, appends: Sequence[StreamAppend]) -> Sequence[StreamAppend]:
        """Return appends whose payloads are in their stored form, each event with its type.

        What is no list of appends is left as it is, for the encoder to refuse. Raises InvalidArgument, EncodingFailed,
        KeyUnavailable, StoreUnavailable.
        """
        if self.as_given or not _well_formed(appends):
            return appends
        for append in appends:
            check_target(append.stream, "append to")
        dumped = [[self._types.dump(event) for event in append.events] for append in appends]
        subjects = [[self._subject(append.stream, event) for event in append.events] for append in appends]
        handles = await self._handles([name for names in subjects for name in names])
        return [
            append._replace(
                events=[
                    self._ready(append.stream, event, value, handles.get(subject))
                    for (event, value), subject in zip(events, names, strict=True)
                ],
            )
            for append, events, names in zip(appends, dumped, subjects, strict=True)
        ]

    def prepare_import(
        self, events: AsyncIterable[ImportedEvent] | Iterable[ImportedEvent]
    ) -> AsyncIterable[ImportedEvent] | Iterable[ImportedEvent]:
        """Return the events of an import, made ready likewise as they are taken."""
        return events if self.as_given else self._prepared(events)

    async def _prepared(
        self, events: AsyncIterable[ImportedEvent] | Iterable[ImportedEvent]
    ) -> AsyncIterator[ImportedEvent]:
        async for chunk in _chunks(events):
            appends = [StreamAppend(each.stream, [each.event]) for each in chunk]
            for each, append in zip(chunk, await self.prepare(appends), strict=True):
                yield each._replace(event=append.events[0])

    async def prepare_snapshot(self, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot whose payloads are ``Ready``. Raises what ``prepare`` raises."""
        data, version, name = snapshot.data, snapshot.schema_version, snapshot.type
        shape = self._types.shape_of(data)
        if shape is not None:
            if name != shape.type or version not in (1, shape.version):
                raise InvalidArgument("snapshot.type", f"{name!r} version {version}, but its state is a {shape!r}")
            data, version = self._types.values(name, data), shape.version
        subject = self._subject(snapshot.source, snapshot)
        handle = (await self._handles([subject])).get(subject)
        place = _snapshot_place(snapshot.source, snapshot.version)
        return replace(
            snapshot,
            data=Ready(self._sealed(self._codec.encode(name, data), name, place, "data", handle)),
            metadata=self._ready_metadata(name, snapshot.metadata, place, handle),
            schema_version=version,
            subject=None,
        )

    async def in_place_of(self, event: RecordedEvent, value: Any) -> bytes:
        """Return a payload that may be kept in place of a recorded event's: encrypted under the same key, if that is.

        So it is erased with the event. Raises EncodingFailed, StoreUnavailable, ConfigurationError for an encrypted
        event of a store that was opened without encryption, KeyUnavailable also when the subject was forgotten.
        """
        raw, key_id = self._codec.encode(event.type, value), envelope.key_of(event.raw_data)
        if key_id is None:
            return self._sealed(raw, event.type, "", "data", None)
        if self._ring is None:
            raise ConfigurationError(
                f"the event at position {event.position} is encrypted, and so must be what is kept in its place: "
                "say which encryption the store has (HEADWATER_ENCRYPTION)"
            )
        handle = (await self._ring.by_id([key_id]))[key_id]
        return self._sealed(raw, event.type, _event_place(event.stream, event.id), "data", handle)

    def _subject(self, place: str, what: NewEvent | Snapshot) -> str | None:
        subject = what.subject
        if self._encryption is None:
            if subject is not None:
                raise InvalidArgument("subject", "needs a store that was opened with encryption")
            return None
        if subject is None and self._encryption.subject is not None:
            subject = self._encryption.subject(place, what)
        return None if subject is None else check_name("subject", subject)

    async def _handles(self, subjects: Sequence[str | None]) -> Mapping[str | None, Handle]:
        wanted = {subject for subject in subjects if subject is not None}
        if not wanted or self._ring is None:
            return {}
        found = await self._ring.by_subject(wanted)
        return {subject: found[subject] for subject in wanted}

    def _ready(self, stream: str, event: NewEvent, value: Any, handle: Handle | None) -> NewEvent:
        place = _event_place(stream, event.id)
        return event._replace(
            data=Ready(self._sealed(self._codec.encode(event.type, value), event.type, place, "data", handle)),
            metadata=self._ready_metadata(event.type, event.metadata, place, handle),
            subject=None,
        )

    def _ready_metadata(self, name: str, metadata: Any, place: str, handle: Handle | None) -> Any:
        if metadata is None:
            return None
        encrypted = handle if self._encryption is not None and self._encryption.metadata else None
        return Ready(self._sealed(self._codec.encode(name, metadata), name, place, "metadata", encrypted))

    def _sealed(self, raw: bytes, name: str, place: str, part: str, handle: Handle | None) -> bytes:
        if handle is not None and self._encryption is not None:
            body = self._encryption.cipher.encrypt(handle.usable(), raw, _context(place, part))
            return envelope.seal(handle.key_id, body, binary=self._binary)
        if self._ring is not None and envelope.is_sealed(raw):
            raise EncodingFailed(name, "it begins as an encrypted payload does")
        return raw

    # Reading

    async def open(self, events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
        """Return events as they may be seen now, whether they were opened before or not. Raises StoreUnavailable.

        What is wrong with a payload or its key is raised when somebody looks at it, not here.
        """
        if self.plain or not events:
            return events
        if self._ring is None:
            return [ViewedEvent.of(event, self._view) if type(event) is RecordedEvent else event for event in events]
        ids = [_key_id(event) for event in events]
        handles = await self._ring.by_id({key_id for key_id in ids if key_id is not None})
        return [
            event
            if type(event) is ViewedEvent and type(event.view) is not PayloadView
            else ViewedEvent.of(event, self._view if key_id is None else PayloadView(self, handles[key_id]))
            for event, key_id in zip(events, ids, strict=True)
        ]

    async def open_snapshot(self, stored: Snapshot) -> Snapshot:
        """Return a snapshot as it is seen, from one with its stored payloads.

        Raises UpcastingFailed, EncodingFailed, EncryptionError, StoreUnavailable.
        """
        data, metadata = stored.data.raw, None if stored.metadata is None else cast("Ready", stored.metadata).raw
        handle = None
        if self._ring is not None:
            for raw in (data, metadata):
                if raw is not None and (key_id := envelope.key_of(raw)) is not None:
                    handle = (await self._ring.by_id([key_id]))[key_id]
        shape = self._types.newest(Shape(stored.type, stored.schema_version))
        place = _snapshot_place(stored.source, stored.version)
        seen = replace(stored, type=shape.type, schema_version=shape.version, data=None, metadata=None)
        value = self._opened(data, stored.type, place, "data", handle)
        if value is not _GONE:
            value = self._types.lift(Shape(stored.type, stored.schema_version), value)
        facts = None if metadata is None else self._opened(metadata, stored.type, place, "metadata", handle)
        return replace(seen, data=self._shown(value, seen), metadata=self._shown(facts, seen))

    def _shown(self, value: Any, what: RecordedEvent | Snapshot) -> Any:
        return self._encryption.erased(what) if value is _GONE and self._encryption is not None else value

    def _opened(self, raw: bytes, name: str, place: str, part: str, handle: Handle | None) -> Any:
        """Return the decoded payload, _GONE when its key was destroyed."""
        if self._encryption is not None and envelope.is_sealed(raw):
            sealed = envelope.parse(raw)
            if sealed is None or handle is None or sealed.key_id != handle.key_id:
                raise SealBroken(place, part)
            if handle.state.destroyed:
                return _GONE
            try:
                raw = self._encryption.cipher.decrypt(handle.usable(), sealed.body, _context(place, part))
            except ValueError:
                raise SealBroken(place, part) from None
        return self._codec.decode(name, raw)

    def shape(self, event: RecordedEvent) -> Shape:
        """Return the newest shape of an event's type."""
        return self._types.newest(_stored_shape(event))

    def data(self, event: RecordedEvent, handle: Handle | None) -> Any:
        """Return an event's payload in its newest shape."""
        shape = _stored_shape(event)
        value = self._opened(event.raw_data, shape.type, _event_place(event.stream, event.id), "data", handle)
        return self._shown(value, event) if value is _GONE else self._types.lift(shape, value, event.position)

    def metadata(self, event: RecordedEvent, handle: Handle | None) -> Any:
        """Return an event's metadata."""
        if event.raw_metadata is None:
            return None
        name, place = _stored_shape(event).type, _event_place(event.stream, event.id)
        return self._shown(self._opened(event.raw_metadata, name, place, "metadata", handle), event)

    def object(self, event: RecordedEvent, handle: Handle | None) -> Any:
        """Return an event's payload as an instance of its class."""
        data = self.data(event, handle)
        if handle is not None and handle.state.destroyed and envelope.is_sealed(event.raw_data):
            return data
        return self._types.load(self.shape(event).type, data)

    # Keys

    async def forget(self, subject: str) -> bool:
        """Destroy a subject's key; returns whether there was one. Safe to repeat. Raises StoreUnavailable."""
        check_name("subject", subject)
        if self._ring is not None:
            return await self._ring.forget(subject)
        return bool(await self._keys.destroy(subject))

    async def knows(self, subject: str) -> bool:
        """Whether a subject has a key."""
        return bool(await self._keys.by_subject([check_name("subject", subject)]))

    async def rewrap_keys(self) -> int:
        """Wrap every key with the first master key; returns how many another one had wrapped. Safe to repeat.

        Raises ConfigurationError for a store without encryption, KeyUnavailable, StoreUnavailable.
        """
        if self._ring is None:
            raise ConfigurationError("this store was opened without encryption: there are no master keys")
        return await self._ring.rewrap()


_GONE: Final = object()
_shape_columns: Final = itemgetter(*map(EventRow._fields.index, ("type", "schema_version")))


class PayloadView:
    """The view of the events of a store that need the same key, or none."""

    __slots__ = ("_payloads", "handle")

    def __init__(self, payloads: Payloads, handle: Handle | None) -> None:
        self._payloads = payloads
        self.handle = handle

    @property
    def erased(self) -> bool:
        return self.handle is not None and self.handle.state.destroyed

    def shape(self, event: RecordedEvent) -> tuple[str, int]:
        return self._payloads.shape(event)

    def data(self, event: RecordedEvent) -> Any:
        return self._payloads.data(event, self.handle)

    def metadata(self, event: RecordedEvent) -> Any:
        return self._payloads.metadata(event, self.handle)

    def object(self, event: RecordedEvent) -> Any:
        return self._payloads.object(event, self.handle)


def _well_formed(appends: object) -> bool:
    """Whether these are lists of new events: the very conditions that the encoder sets."""
    return (
        isinstance(appends, Sequence)
        and all(isinstance(append, StreamAppend) for append in appends)
        and all(type(append.stream) is str and isinstance(append.events, Sequence) for append in appends)
        and all(type(event) is NewEvent for append in appends for event in append.events)
        and all(isinstance(event.id, uuid.UUID) for append in appends for event in append.events)
    )


def _stored_shape(event: RecordedEvent) -> Shape:
    # As columns of the row: what an opened event tells of its type is the newest.
    return Shape(*_shape_columns(event))


def _key_id(event: RecordedEvent) -> uuid.UUID | None:
    for raw in (event.raw_data, event.raw_metadata):
        if raw is not None and (key_id := envelope.key_of(raw)) is not None:
            return key_id
    return None


def _event_place(stream: str, id: uuid.UUID) -> str:
    return f"event {id} of {stream}"


def _snapshot_place(source: str, version: int) -> str:
    return f"snapshot {version} of {source}"


def _context(place: str, part: str) -> bytes:
    # What the ciphertext is bound to: moved to another event, or from data to metadata, it does not open.
    return f"{part} of {place}".encode()


async def _chunks(
    events: AsyncIterable[ImportedEvent] | Iterable[ImportedEvent],
) -> AsyncIterator[list[ImportedEvent]]:
    chunk: list[ImportedEvent] = []
    async for event in _each(events):
        if type(event) is not ImportedEvent:
            raise InvalidArgument("events", f"must yield ImportedEvent, not {type(event).__name__}")
        chunk.append(event)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def _each(events: AsyncIterable[ImportedEvent] | Iterable[ImportedEvent]) -> AsyncIterator[ImportedEvent]:
    if isinstance(events, AsyncIterable):
        async for event in events:
            yield event
    elif isinstance(events, Iterable):
        for event in events:
            yield event
    else:
        raise InvalidArgument("events", f"must be an iterable of ImportedEvent, not {type(events).__name__}")
