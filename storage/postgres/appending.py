"""Sends encoded appends and reads each one's outcome: written, repeated or refused.

Never queues and never reconnects; that is the group commit's work.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final, NamedTuple, TypeAlias

import psycopg

from headwater.storage.errors import (
    AppendError,
    ConditionFailed,
    DuplicateEvent,
    HeadwaterError,
    StreamDeleted,
    StreamExists,
    StreamMissing,
    WrongExpectedVersion,
)
from headwater.storage.model import NO_STREAM, STREAM_EXISTS, AppendResult, Expected
from headwater.storage.postgres.arrays import UuidArray, uuid_part
from headwater.storage.postgres.connect import Connection, row_cursor
from headwater.storage.postgres.encoding import EncodedAppend, Encoder, Unit, condition_parameters
from headwater.storage.postgres.failures import translate
from headwater.storage.postgres.lanes import Lane
from headwater.storage.postgres.statements import Statements

Outcome: TypeAlias = "list[AppendResult] | HeadwaterError"
"""What one unit came to: its results, or why it was refused."""

_WRITTEN: Final = 0
_DELETED: Final = 2
_NEIGHBOUR: Final = 3
_UNSTORABLE: Final = (
    psycopg.DataError,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.StatementTooComplex,
)
"""What the server says of a value: it will say so again."""


class Place(NamedTuple):
    """Where a stored event stands."""

    stream: str
    version: int
    position: int


async def write(
    conn: Connection | Lane, sql: Statements, encoder: Encoder, units: Sequence[Unit], *, look_first: bool = False
) -> list[Outcome]:
    """Append many units in one call, on a connection of the caller's or on a lane; returns each one's own outcome.

    One that is refused does not touch its neighbours. An id that is stored already, and a value that the server cannot
    store, breaks the call as a whole; then the units that it belongs to are told apart and the others are sent again.
    Within a caller's transaction, which a broken call would end, ``look_first`` tells the stored ones apart before.
    """
    if not look_first:
        try:
            return await _call(conn, sql, encoder, units)
        except psycopg.errors.UniqueViolation:
            pass
        except _UNSTORABLE as error:
            if len(units) == 1:
                return [translate(error)]
            half = len(units) // 2
            return [
                *await write(conn, sql, encoder, units[:half]),
                *await write(conn, sql, encoder, units[half:]),
            ]
    outcomes: dict[int, Outcome] = {}
    waiting = list(enumerate(units))
    while waiting:
        async with _cursors(conn) as own:
            waiting = await _settle_stored(own, sql, waiting, outcomes)
        now, waiting = _without_common_ids(waiting)
        if now:
            # Others may have stored some of the ids since it was looked for them. Fewer each time, so that this ends.
            fewer = look_first or len(now) < len(units)
            send = write if fewer and not _within_transaction(conn) else _call
            found = await send(conn, sql, encoder, [unit for _, unit in now])
            outcomes.update(zip([number for number, _ in now], found, strict=True))
    return [outcomes[number] for number in range(len(units))]


def _within_transaction(conn: Connection | Lane) -> bool:
    return not isinstance(conn, Lane) and conn.pgconn.transaction_status != psycopg.pq.TransactionStatus.IDLE


_Numbered: TypeAlias = "list[tuple[int, Unit]]"


async def _call(conn: Connection | Lane, sql: Statements, encoder: Encoder, units: Sequence[Unit]) -> list[Outcome]:
    if isinstance(conn, Lane) and (events := _lone_events(units)) is not None:
        written = await _write_events(conn, sql, encoder, events)
        if written is not None:
            return written
        # Something was refused; the other statements tell what, and why.
    first = units[0]
    lone = len(units) == 1 and first.lone
    condition = first.condition
    if lone:
        statement, parameters = sql.append_one, encoder.lone_parameters(first.appends[0])
    elif condition is None:
        statement, parameters = sql.append, encoder.parameters(units)
    else:
        statement, parameters = sql.append_if, [*condition_parameters(condition), *encoder.parameters([first])]
    if lone and isinstance(conn, Lane):
        row: Sequence[Any] = await conn.row_past_gate(statement, sql.append_one_past_gate, parameters)
    elif condition is None and isinstance(conn, Lane):
        row = await conn.row(statement, parameters)
    else:
        async with _cursors(conn) as own:
            cursor = row_cursor(own)
            await cursor.execute(statement, parameters, binary=True)
            row = await cursor.fetchone() or ()
    versions, positions, codes, *conflict = row
    if condition is not None and conflict[0] is not None:
        outcomes: dict[int, Outcome] = {0: ConditionFailed(condition.after, conflict[0])}
        refused = [(0, first)]
    else:
        outcomes, refused = _outcomes(units, versions, positions, codes)
    if refused:
        # The same events, sent before and written before, are refused by their version: that is a success, too. And an
        # id that is stored elsewhere can never be written, whatever version is expected: that is what the caller hears.
        async with _cursors(conn) as own:
            await _settle_stored(own, sql, refused, outcomes)
    return [outcomes[number] for number in range(len(units))]


def _lone_events(units: Sequence[Unit]) -> list[EncodedAppend] | None:
    """Return the appends when each is one event, without a time, to a stream of its own; None otherwise."""
    appends = [unit.appends[0] for unit in units if unit.events == 1 and unit.lone]
    if len(appends) == len(units) and len({append.stream for append in appends}) == len(units):
        return appends
    return None


async def _write_events(
    lane: Lane, sql: Statements, encoder: Encoder, appends: Sequence[EncodedAppend]
) -> list[Outcome] | None:
    """Append one event to each of some streams; returns None, and has written nothing, when any is refused."""
    if len(appends) == 1:
        [before] = await lane.row_past_gate(
            sql.append_event, sql.append_event_past_gate, encoder.event_parameters(appends[0])
        )
        if before is None:
            return None
        version, position = before
        return [[_result(appends[0], version + 1, position + 1)]]
    [before] = await lane.row(sql.append_events, encoder.events_parameters(appends))
    if before is None:
        return None
    position, *versions = before
    return [
        [_result(append, version + 1, place)]
        for append, version, place in zip(appends, versions, itertools.count(position + 1), strict=False)
    ]


def _outcomes(
    units: Sequence[Unit], versions: Sequence[Any], positions: Sequence[Any], codes: Sequence[int] | None
) -> tuple[dict[int, Outcome], _Numbered]:
    """Return what each unit came to, and those that were refused."""
    outcomes: dict[int, Outcome] = {}
    refused: _Numbered = []
    place = 0
    for number, unit in enumerate(units):
        last = place + len(unit.appends)
        if codes is None and last == place + 1:
            outcomes[number] = [_result(unit.appends[0], versions[place] + 1, positions[place] + 1)]
            place = last
            continue
        part = slice(place, last)
        if codes is None or codes[place] == _WRITTEN:
            outcomes[number] = [
                _result(append, version + 1, position + 1)
                for append, version, position in zip(unit.appends, versions[part], positions[part], strict=True)
            ]
        else:
            outcomes[number] = _refusal(unit, codes[part], versions[part])
            refused.append((number, unit))
        place = last
    return outcomes, refused


def _cursors(conn: Connection | Lane) -> AbstractAsyncContextManager[Connection]:
    """Give the connection to statements that need the driver's cursor."""
    return conn.lent() if isinstance(conn, Lane) else nullcontext(conn)


def _result(append: EncodedAppend, version: int, position: int, *, repeated: bool = False) -> AppendResult:
    more = append.size - 1
    return AppendResult(append.stream, version, version + more, position, position + more, repeated)


def wrong_version(stream: str, expected: Expected, version: int | None) -> WrongExpectedVersion:
    """Return the error for an expected version that the stream is not at; the version of a missing one is None."""
    kinds: dict[Any, type[WrongExpectedVersion]] = {NO_STREAM: StreamExists, STREAM_EXISTS: StreamMissing}
    return kinds.get(expected, WrongExpectedVersion)(stream, expected, version)


def _refusal(unit: Unit, codes: Sequence[int], versions: Sequence[int | None]) -> AppendError | StreamDeleted:
    for append, code, version in zip(unit.appends, codes, versions, strict=True):
        if code == _DELETED:
            return StreamDeleted(append.stream)
        if code != _NEIGHBOUR:
            return wrong_version(append.stream, append.expected, version)
    raise AssertionError("a unit is refused because of one of its appends")


async def _settle_stored(
    conn: Connection, sql: Statements, units: _Numbered, outcomes: dict[int, Outcome]
) -> _Numbered:
    """Give every unit that has a stored event its outcome; returns the others."""
    stored = await _places(conn, sql, units)
    rest: _Numbered = []
    for number, unit in units:
        known = next(((a.stream, id) for a in unit.appends for id in a.ids if id in stored), None)
        if known is None:
            rest.append((number, unit))
        else:
            outcomes[number] = _repeated(unit, stored) or DuplicateEvent(*known)
    return rest


async def _places(conn: Connection, sql: Statements, units: _Numbered) -> dict[uuid.UUID, Place]:
    ids = [id for _, unit in units for append in unit.appends for id in append.ids]
    cursor = row_cursor(conn)
    wanted = UuidArray.of_wire(b"".join([uuid_part(id) for id in ids]), len(ids))
    await cursor.execute(sql.stored_places, (wanted,), binary=True)
    return {row[0]: Place(*row[1:]) for row in await cursor.fetchall()}


def _repeated(unit: Unit, stored: dict[uuid.UUID, Place]) -> list[AppendResult] | None:
    """Return the first results when all events of a unit stand where this append would have put them."""
    results = []
    for append in unit.appends:
        first = stored.get(append.ids[0])
        if first is None or first.stream != append.stream:
            return None
        before = first.version - 1
        if before != append.expected if isinstance(append.expected, int) else append.expected is NO_STREAM and before:
            return None
        for more, id in enumerate(append.ids):
            place = stored.get(id)
            if place is None or place != (first.stream, first.version + more, first.position + more):
                return None
        results.append(_result(append, first.version, first.position, repeated=True))
    return results


def _without_common_ids(units: _Numbered) -> tuple[_Numbered, _Numbered]:
    """Part units that have an id in common: the later ones wait until the first is written."""
    seen: set[uuid.UUID] = set()
    now: _Numbered = []
    later: _Numbered = []
    for numbered in units:
        ids = {id for append in numbered[1].appends for id in append.ids}
        (later if ids & seen else now).append(numbered)
        seen |= ids
    return now, later
