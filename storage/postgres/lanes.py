"""The connections that a store's own appends go by, and the reads that wait for one: kept while calls follow one
another, called without a cursor.

Who waits for the server waits for nothing else: to take a connection, a time limit and a cursor for each call took a
third of what the server needs. Knows how libpq sends statements, and never looks into them.

A lane that appends now and then keeps a *gate* shut between its appends: a lock of its session, of a number that never
comes again, at which readers wait in the server for the append that opens it.

Invariants:
1. A lane is free, or in exactly one call, or given back to the pool.
2. At most as many lanes are kept as there are calls at once; none when others wait for the pool, or it is small.
3. A connection whose call did not end (cancelled, too late, broken) is closed, and the pool replaces it; so is one on
   which something came without a call.
4. A lane has one gate shut at most, and none when the pool has its connection again.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import pq

from headwater.storage.model import MAX_GATE
from headwater.storage.postgres.arrays import numbers_of
from headwater.storage.postgres.connect import Connection, Pool, StoreConnection
from headwater.storage.postgres.pools import ended
from headwater.storage.postgres.wire import numbered, wire

KEPT: Final = 0.05
"""How long, in seconds, a lane without a call is kept before the pool has its connection again; also how often it is
looked whether a call takes too long."""
KEPT_SHUT: Final = 0.5
"""How long a gate is kept shut, and the lane with it: readers wait there for its next append. From when it was shut, as
calls that pass no gates may follow for long, and readers would wait in vain."""
QUIET: Final = 0.002
"""So many seconds after the last call an append passes a gate: what comes thick and fast is not worth to be waited for
one by one."""
SMALLEST_POOL: Final = 4
"""Of a smaller pool, no connection is kept."""

_BINARY: Final = pq.Format.BINARY
_RESULTS: Final = frozenset({pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.PIPELINE_SYNC})

Row: TypeAlias = "Sequence[list[Any] | None]"
"""Columns of whole numbers, None for null."""
Call: TypeAlias = tuple[bytes, Sequence[object]]
"""A statement and its parameters, in the order of its placeholders; see :meth:`Lane.row`."""


class Gates:
    """What the lanes of a store need to shut and open gates."""

    def __init__(self, open_all: bytes) -> None:
        self.open_all = open_all
        """The statement that opens whatever gate its session has shut."""
        # Not from the generator that programs seed, each with the same number.
        self._numbers = itertools.count(secrets.randbits(31))

    def number(self) -> int:
        """Return the next number. One that another session has, too, does no harm: readers look once more, or later."""
        return next(self._numbers) & MAX_GATE


class Lane:
    """One connection, and the call on it."""

    def __init__(self, conn: StoreConnection, *, timeout: float, prepare: bool, gates: Gates | None = None) -> None:
        self.conn = conn
        self.session: int = conn.info.backend_pid
        """The server's number for the connection."""
        self.gate: int | None = None
        """The number of the gate that is shut."""
        self._shut_at = 0.0
        self._gates = gates
        self._pgconn = conn.pgconn
        self._loop = asyncio.get_running_loop()
        self.called_at = self._loop.time()
        """When the last call ended, by the event loop's clock."""
        self.quiet_since = self.called_at
        """The same, or when the last call before the lane was made ended."""
        self._timeout = timeout
        self._begun = 0.0
        self._prepare = prepare
        self._ended = False
        self._answer: asyncio.Future[None] | None = None
        self._results: list[pq.abc.PGresult] = []
        self._socket = self._pgconn.socket
        self._watch()

    def _watch(self) -> None:
        self._watching = True
        self._loop.add_reader(self._socket, self._readable)

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[Connection]:
        """Lend the connection to the driver, which watches it by itself meanwhile. Raises TimeoutError."""
        self.leave()
        try:
            async with asyncio.timeout(self._timeout):
                yield self.conn
        finally:
            if not self.broken:
                self._watch()

    async def row(self, statement: bytes, parameters: Sequence[object]) -> Row:
        """Execute a statement that gives one row of arrays of numbers.

        A parameter is null, a number (sent as bigint), a text, an array, or any value's binary form as bytes.
        Raises the driver's errors, and TimeoutError after the time-out.
        """
        while True:
            name = await self._name_of(statement)
            self._send(name, statement, parameters)
            try:
                return _row((await self._answered())[0])
            except psycopg.errors.InvalidSqlStatementName:
                # The driver discards whatever is prepared after some rollbacks and changes of tables.
                self.conn.prepared.pop(statement, None)

    async def row_past_gate(self, statement: bytes, past_gate: bytes, parameters: Sequence[object]) -> Row:
        """As :meth:`row`, for an append; ``past_gate`` is the same, and first takes the gates to shut and to open.

        That is sent where somebody is told of gates, and calls do not follow one another quickly.
        """
        if self._gates is None or self._loop.time() - self.quiet_since < QUIET:
            return await self.row(statement, parameters)
        opened, self.gate, self._shut_at = self.gate, self._gates.number(), self._loop.time()
        gates = [self.gate.to_bytes(4), None if opened is None else opened.to_bytes(4)]
        try:
            return await self.row(past_gate, [*gates, *parameters])
        except psycopg.Error:
            await self.open_gate()  # which of the two is shut depends on where it failed
            raise

    async def open_gate(self) -> None:
        """Let go who waits at the gate, unless the connection is broken, or none is shut. Raises as :meth:`row`."""
        if self._gates is not None and self.gate is not None and not self.broken:
            await self.last_of((self._gates.open_all, ()))
        self.gate = None

    async def last_of(self, *calls: Call) -> pq.abc.PGresult:
        """Execute statements in one round trip and one transaction; returns what the last one gives.

        Each sees what was committed before its own beginning. Raises as :meth:`row`.
        """
        while True:
            names = [await self._name_of(statement) for statement, _ in calls]
            self._pgconn.enter_pipeline_mode()
            for name, (statement, parameters) in zip(names, calls, strict=True):
                self._send(name, statement, parameters)
            self._pgconn.pipeline_sync()
            try:
                return (await self._answered())[len(calls) - 1]
            except psycopg.errors.InvalidSqlStatementName:
                for statement, _ in calls:
                    self.conn.prepared.pop(statement, None)

    def _send(self, name: bytes | None, statement: bytes, parameters: Sequence[object]) -> None:
        values = [wire(each) for each in parameters]
        formats = [_BINARY] * len(values)
        if name is None:
            self._pgconn.send_query_params(numbered(statement)[0], values, None, formats, _BINARY)
        else:
            self._pgconn.send_query_prepared(name, values, formats, _BINARY)

    async def _name_of(self, statement: bytes) -> bytes | None:
        """Return the name by which the server knows a statement; None where nothing is prepared."""
        if not self._prepare:
            return None
        name = self.conn.prepared.get(statement)
        if name is None:
            name = self.conn.new_name()
            self._pgconn.send_prepare(name, numbered(statement)[0])
            await self._answered()
            self.conn.prepared[statement] = name
        return name

    def expire(self, now: float) -> None:
        """Let a call that takes too long end with TimeoutError."""
        if self._answer is not None and not self._answer.done() and now - self._begun > self._timeout:
            self._answer.set_exception(TimeoutError("the database did not answer in time"))

    def leave(self) -> None:
        """Stop watching the connection. Safe to repeat."""
        # Once only: a broken connection's socket is closed, and its number may be another one's by now.
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)

    def look(self) -> None:
        """See whether the connection has ended while nobody called, which makes it a broken one."""
        if ended(self.conn):
            self._end()

    def worth_keeping(self, now: float) -> bool:
        """Whether another call is to be expected soon, or somebody to wait for it."""
        return now - self.called_at < KEPT if self.gate is None else now - self._shut_at < KEPT_SHUT

    @property
    def broken(self) -> bool:
        """Whether the connection can take no further call."""
        return (
            self._ended
            or bool(self._pgconn.pipeline_status)
            or self._pgconn.transaction_status != pq.TransactionStatus.IDLE
        )

    async def _answered(self) -> list[pq.abc.PGresult]:
        """Wait for the results of what was sent, all of them or up to the first error, which is raised."""
        if self._ended:  # nobody would hear an answer
            raise psycopg.OperationalError("the server has ended the connection")
        answer = self._answer = self._loop.create_future()
        self._results = []
        self._begun = self._loop.time()
        if self._pgconn.flush():
            self._loop.add_writer(self._socket, self._writable)
        try:
            await answer
        finally:
            self._answer = None
            self.called_at = self.quiet_since = self._loop.time()
        if self._pgconn.pipeline_status:
            self._pgconn.exit_pipeline_mode()
        for result in self._results:
            if result.status not in _RESULTS:
                raise psycopg.errors.error_from_result(result)
        return self._results

    def _readable(self) -> None:
        answer = self._answer
        if answer is None:
            self._end()
            return
        try:
            self._pgconn.consume_input()
            while not answer.done() and not self._pgconn.is_busy():
                result = self._pgconn.get_result()
                if result is not None:
                    self._results.append(result)
                # Of several statements each one's results end with None, and all of them with the sync.
                if result.status == pq.ExecStatus.PIPELINE_SYNC if result else not self._pgconn.pipeline_status:
                    answer.set_result(None)
                elif self._pgconn.status == pq.ConnStatus.BAD:
                    break
        except psycopg.Error as error:
            self._broke(error)
        else:
            if self._pgconn.status == pq.ConnStatus.BAD:
                self._broke(psycopg.OperationalError("the connection is lost"))

    def _writable(self) -> None:
        try:
            if not self._pgconn.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.Error as error:
            self._broke(error)

    def _end(self) -> None:
        """Call nobody any more. What came is left where it is: the pool looks for it there."""
        self._ended = True
        self.leave()

    def _broke(self, error: psycopg.Error) -> None:
        self.leave()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


class Lanes:
    """The lanes of one store."""

    def __init__(self, pool: Pool, *, timeout: float, prepare: bool, gates: Gates | None = None) -> None:
        self._pool = pool
        self._timeout = timeout
        self._prepare = prepare
        self._keep = pool.max_size >= SMALLEST_POOL
        self._gates = gates if self._keep else None
        self._wanted = False
        self._left_at = float("-inf")
        self._free: list[Lane] = []
        self._busy: set[Lane] = set()
        self._look: asyncio.TimerHandle | None = None
        self._giving: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Lanes {len(self._busy)} with a call, {len(self._free)} free>"

    @property
    def spare(self) -> bool:
        """Whether a lane may wait for long: others do not want its connection."""
        return self._keep and not self._others_wait()

    async def take(self) -> Lane:
        """Return a lane for one call; ``leave`` it afterwards, whatever became of the call."""
        while self._free and not self._pool.closed:
            lane = self._free.pop()  # the one used last: the server's memory of it is warm
            lane.look()
            if not lane.broken:
                self._busy.add(lane)
                return lane
            await self._give_back(lane)
        lane = Lane(await self._pool.getconn(), timeout=self._timeout, prepare=self._prepare, gates=self._gates)
        if lane.called_at - self._left_at < KEPT_SHUT:
            # It goes on where another lane ended. Otherwise the gate would be open again before the next append.
            lane.quiet_since = self._left_at
        self._busy.add(lane)
        if self._look is None:
            self._look_later()
        return lane

    async def leave(self, lane: Lane) -> None:
        """Take a lane back: to be used again, or not when its call did not end."""
        self._busy.discard(lane)
        self._left_at = asyncio.get_running_loop().time()
        if not self._keep or lane.broken:
            await self._give_back(lane)
        elif self._wanted:
            self._give_back_soon(lane)  # its gate is opened first: whoever made the call need not wait for that
        else:
            self._free.append(lane)

    async def close(self) -> None:
        """Give every connection back to the pool; those with a call follow when it ends."""
        self._keep = False
        if self._look is not None:
            self._look.cancel()
        while self._free:
            self._give_back_soon(self._free.pop())
        await asyncio.gather(*self._giving)

    async def _give_back(self, lane: Lane) -> None:
        try:
            # Nobody else looks whether this call takes too long. What is not opened here opens with the session's end.
            with suppress(psycopg.Error, TimeoutError):
                async with asyncio.timeout(self._timeout):
                    await lane.open_gate()
        finally:
            lane.leave()
            if lane.broken or lane.gate is not None:
                await lane.conn.close()
            await self._pool.putconn(lane.conn)

    def _give_back_soon(self, lane: Lane) -> None:
        """Give a lane back that nobody waits for."""
        task = asyncio.get_running_loop().create_task(self._give_back(lane), name="headwater-lane")
        self._giving.add(task)
        task.add_done_callback(self._giving.discard)

    def _others_wait(self) -> bool:
        return self._pool.get_stats().get("requests_waiting", 0) > 0

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._look = loop.call_later(min(KEPT, self._timeout / 2), self._look_around, loop)

    def _look_around(self, loop: asyncio.AbstractEventLoop) -> None:
        self._look = None
        now = loop.time()
        for lane in self._busy:
            lane.expire(now)
        self._wanted = self._others_wait()
        for lane in [lane for lane in self._free if self._wanted or not lane.worth_keeping(now)]:
            self._free.remove(lane)
            self._give_back_soon(lane)
        if self._free or self._busy:
            self._look_later()


def _row(result: pq.abc.PGresult) -> Row:
    return [numbers_of(result.get_value(0, column)) for column in range(result.nfields)]
