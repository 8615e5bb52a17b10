"""Opens connections with the settings that the store's statements count on; pools of them are in ``pools``.

Never holds a connection itself and never sends a statement.
"""

from __future__ import annotations

import itertools
import select
import weakref
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
from psycopg import abc, pq
from psycopg.adapt import AdaptersMap, Buffer, Dumper, Loader, Transformer
from psycopg.pq import Format
from psycopg.rows import AsyncRowFactory, RowMaker, tuple_row
from psycopg.types.string import ByteaBinaryLoader
from psycopg.waiting import Ready, Wait
from psycopg_pool import AsyncConnectionPool

from headwater.storage.model import RecordedEvent
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.arrays import ARRAY_KINDS, BinaryArray

Connection: TypeAlias = psycopg.AsyncConnection[Any]

Value = TypeVar("Value")

BURST: Final = 32
"""So many pieces of an answer are read in a row before others have their turn."""

_LAST: Final = frozenset({"FATAL", "PANIC"})
"""How bad it is what the server says last."""
_UTC_NAMES: Final = frozenset({"UTC", "Etc/UTC", "GMT", "Etc/GMT", "UCT", "Etc/UCT", "Zulu", "Etc/Zulu"})
_POSTGRES_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)


class _BytesLoader(Loader):
    """Hands JSON over as the bytes that came: nobody may ever look at them."""

    format = Format.TEXT

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


class _BinaryJsonbLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return bytes(data)[1:]  # the first byte is the version of the encoding


class _UtcLoader(Loader):
    """Tells times in UTC although the session's zone is another; the driver's own loader would be faster."""

    format = Format.BINARY

    def load(self, data: Buffer) -> datetime:
        return _POSTGRES_EPOCH + timedelta(microseconds=int.from_bytes(data, "big", signed=True))


def _array_dumper(array_oid: int) -> type[Dumper]:
    class ArrayDumper(Dumper):
        format = Format.BINARY
        oid = array_oid

        def dump(self, obj: BinaryArray) -> Buffer:
            return obj.wire

    return ArrayDumper


_ARRAY_DUMPERS = tuple((kind, _array_dumper(kind.array_oid)) for kind in ARRAY_KINDS)


def adapt(adapters: AdaptersMap, zone: str | None) -> None:
    """Teach a connection or cursor the store's arrays, to leave JSON payloads as bytes, and to tell times in UTC."""
    for kind, dumper in _ARRAY_DUMPERS:
        adapters.register_dumper(kind, dumper)
    for name in ("json", "jsonb"):
        adapters.register_loader(name, _BytesLoader)
    # In binary a json value is its text and nothing else, so the driver's own loader of bytes, which is in C, will do.
    adapters.register_loader("json", ByteaBinaryLoader)
    adapters.register_loader("jsonb", _BinaryJsonbLoader)
    if zone not in _UTC_NAMES:
        adapters.register_loader("timestamptz", _UtcLoader)


def _zone(conn: Connection) -> str | None:
    return conn.info.parameter_status("TimeZone")


class Parting(psycopg.BaseConnection[Any]):
    """A connection that remembers that the server has taken its leave.

    When its last message is read together with the answer to a statement, the driver has it, and nothing of it can be
    seen on the socket until that is closed.
    """

    goodbye = False
    """Whether the server has said that it ends the connection."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.add_notice_handler(partial(_noticed, weakref.ref(self)))  # weakly: no connection may keep itself alive


def _noticed(which: weakref.ref[Parting], notice: psycopg.errors.Diagnostic) -> None:
    conn = which()
    if conn is not None and notice.severity_nonlocalized in _LAST:
        conn.goodbye = True


class StoreConnection(Parting, psycopg.AsyncConnection[Any]):
    """A connection that the store opened itself: adapted once, not for each statement."""

    def __init__(self, pgconn: pq.abc.PGconn, row_factory: AsyncRowFactory[Any] = tuple_row) -> None:
        super().__init__(pgconn, row_factory)
        self.prepared: dict[bytes, bytes] = {}
        """The names of what was prepared here without a cursor, by statement."""
        self._numbers = itertools.count()

    def new_name(self) -> bytes:
        """Return a name for a statement that is to be prepared, none twice."""
        return b"headwater_%d" % next(self._numbers)

    @cached_property
    def events(self) -> abc.Transformer:
        """What makes tuples of the rows of events, of one answer at a time: made once, as adapting is dear."""
        return Transformer(event_cursor(self))

    async def wait(self, gen: Generator[Any, Any, Value], *args: Any, **options: Any) -> Value:
        """Let the driver go on; the event loop is asked only when nothing has come yet."""
        return await super().wait(_while_ready(gen, self.pgconn.socket), *args, **options)


def _while_ready(gen: Generator[Any, Any, Value], socket: int) -> Generator[Any, Any, Value]:
    """Go on with what has arrived already: a long answer comes in pieces, and a turn of the loop for each is dear."""
    arrived = select.poll()
    arrived.register(socket, select.POLLIN)
    try:
        wanted, burst = next(gen), 0
        while True:
            if wanted == Wait.R and burst < BURST and arrived.poll(0):
                wanted, burst = gen.send(Ready.R), burst + 1
            else:
                wanted, burst = gen.send((yield wanted)), 0
    except StopIteration as end:
        value: Value = end.value
        return value


Pool: TypeAlias = AsyncConnectionPool[StoreConnection]


def connection_settings(options: StoreOptions) -> dict[str, Any]:
    """Return the driver's keyword arguments for every connection of a store."""
    return {
        "autocommit": True,
        "application_name": options.application_name,
        # Behind a transaction-mode pooler the next statement may run on another server session.
        "prepare_threshold": None if options.through_pooler else 0,
        "connect_timeout": max(2, int(options.timeout)),
        # A peer that vanished without a word is noticed within about 15 s, not after hours.
        "keepalives_idle": 5,
        "keepalives_interval": 5,
        "keepalives_count": 2,
    }


async def connect(options: StoreOptions, *, session: bool = False) -> StoreConnection:
    """Open one connection of its own; ``session=True`` for locks and LISTEN, never through a pooler."""
    settings = connection_settings(options)
    url = options.url
    if session:
        url, settings["prepare_threshold"] = options.session_url or options.url, 0
    conn = await StoreConnection.connect(url, **settings)
    adapt(conn.adapters, _zone(conn))
    return conn


new_event: Final[RowMaker[RecordedEvent]] = partial(tuple.__new__, RecordedEvent)
"""Makes an event of a row that has all its columns."""


def event_cursor(conn: Connection, make: RowMaker[RecordedEvent] = new_event) -> psycopg.AsyncCursor[RecordedEvent]:
    """Return a cursor on anybody's connection that makes RecordedEvents of its rows, with payloads and ids as bytes."""

    def events(_cursor: psycopg.AsyncCursor[Any]) -> RowMaker[RecordedEvent]:
        return make

    cursor = conn.cursor(row_factory=events)
    if not isinstance(conn, StoreConnection):
        adapt(cursor.adapters, _zone(conn))
    cursor.adapters.register_loader("uuid", ByteaBinaryLoader)
    return cursor


def events_of(conn: StoreConnection, result: pq.abc.PGresult) -> list[RecordedEvent]:
    """Make of a result in binary what an event cursor makes of it."""
    conn.events.set_pgresult(result)
    return conn.events.load_rows(0, result.ntuples, new_event)


def row_cursor(conn: Connection) -> psycopg.AsyncCursor[Any]:
    """Return a cursor on anybody's connection that yields plain tuples and takes the store's arrays."""
    cursor = conn.cursor(row_factory=tuple_row)
    if not isinstance(conn, StoreConnection):
        adapt(cursor.adapters, _zone(conn))
    return cursor
