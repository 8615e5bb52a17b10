"""Fetches events on the store's own connections: those that have come are made while the server still sends the rest.

A page of a thousand costs the server about as long as it costs its reader, so that the one after the other takes twice
as long. Knows how libpq gives an answer in pieces, and never what is in an event. Where libpq is older than 17, the
answer is one piece.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Final, TypeGuard

import psycopg
from psycopg import pq
from psycopg.rows import RowMaker
from psycopg.waiting import Wait

from headwater.storage.model import RecordedEvent
from headwater.storage.postgres.connect import Connection, StoreConnection
from headwater.storage.postgres.wire import numbered, wire

PIECE: Final = 100
"""So many rows are made into events at a time: between two pieces, what has come is taken off the socket."""

IN_PIECES: Final = psycopg.capabilities.has_stream_chunked()
"""Whether libpq can give an answer in pieces."""

_BINARY: Final = pq.Format.BINARY
_ROWS: Final = frozenset({pq.ExecStatus.TUPLES_CHUNK, pq.ExecStatus.TUPLES_OK})


def can_fetch(conn: Connection) -> TypeGuard[StoreConnection]:
    """Whether a connection is one of the store's own, and in nothing that belongs to somebody else."""
    return (
        isinstance(conn, StoreConnection)
        and conn.autocommit
        and conn.pgconn.transaction_status == pq.TransactionStatus.IDLE
        and conn.pgconn.pipeline_status == pq.PipelineStatus.OFF
    )


async def fetch(
    conn: StoreConnection, statement: bytes, parameters: Mapping[str, Any], make: RowMaker[RecordedEvent]
) -> list[RecordedEvent]:
    """Execute a statement that gives rows of events, and return them; ``make`` makes one of the tuple of a row.

    Its parameters are texts and bigints.
    Raises the driver's errors. Cancelled, it lets the server give up, and the connection is free.
    """
    async with conn.lock:
        return await conn.wait(_fetched(conn, statement, parameters, make))


def _fetched(
    conn: StoreConnection, statement: bytes, parameters: Mapping[str, Any], make: RowMaker[RecordedEvent]
) -> Generator[Wait, Any, list[RecordedEvent]]:
    pgconn = conn.pgconn
    text, names = numbered(statement)
    values = [wire(parameters[name]) for name in names]
    formats = [_BINARY] * len(values)
    while True:
        name = None
        if conn.prepare_threshold is not None:
            name = conn.prepared.get(statement) or (yield from _prepared(conn, statement, text))
        # libpq forgets that an answer should come in pieces only when it turns to the next one of a pipeline: otherwise
        # the first answer of the connection's next pipeline would come in pieces, too.
        pgconn.enter_pipeline_mode()
        if name is None:
            pgconn.send_query_params(text, values, None, formats, _BINARY)
        else:
            pgconn.send_query_prepared(name, values, formats, _BINARY)
        try:
            return (yield from _events(conn, make))
        except psycopg.errors.InvalidSqlStatementName:
            # The driver discards whatever is prepared after some rollbacks and changes of tables.
            del conn.prepared[statement]


def _prepared(conn: StoreConnection, statement: bytes, text: bytes) -> Generator[Wait, Any, bytes]:
    name = conn.new_name()
    conn.pgconn.send_prepare(name, text)
    yield from _sent(conn.pgconn)
    error: Exception | None = None
    while (result := (yield from _result(conn.pgconn))) is not None:
        if result.status != pq.ExecStatus.COMMAND_OK:
            error = psycopg.errors.error_from_result(result)
    if error is not None:
        raise error
    conn.prepared[statement] = name
    return name


def _events(conn: StoreConnection, make: RowMaker[RecordedEvent]) -> Generator[Wait, Any, list[RecordedEvent]]:
    """Take the whole answer, whatever becomes of it: nothing of it may be left for the next statement."""
    pgconn, values = conn.pgconn, conn.events
    if IN_PIECES:
        pgconn.set_chunked_rows_mode(PIECE)
    pgconn.pipeline_sync()
    yield from _sent(pgconn)
    events: list[RecordedEvent] = []
    error: Exception | None = None
    while (result := (yield from _result(pgconn))) is None or result.status != pq.ExecStatus.PIPELINE_SYNC:
        if result is None:  # the answer has ended, and the sync follows, unless the connection is lost
            if pgconn.status == pq.ConnStatus.BAD:
                error = error or psycopg.OperationalError("the connection is lost")
                break
        elif result.status not in _ROWS:
            error = psycopg.errors.error_from_result(result)
        elif error is None and result.ntuples:
            try:
                values.set_pgresult(result, set_loaders=not events)
                events += values.load_rows(0, result.ntuples, make)
            except Exception as failure:  # noqa: BLE001  # raised when the rest of the answer is taken
                error = failure
    values.set_pgresult(None, set_loaders=False)
    if pgconn.status == pq.ConnStatus.OK:
        pgconn.exit_pipeline_mode()
    if error is not None:
        raise error
    return events


def _sent(pgconn: pq.abc.PGconn) -> Generator[Wait, Any, None]:
    while pgconn.flush():
        yield Wait.W


def _result(pgconn: pq.abc.PGconn) -> Generator[Wait, Any, pq.abc.PGresult | None]:
    while pgconn.is_busy():
        yield Wait.R
        pgconn.consume_input()
    return pgconn.get_result()
