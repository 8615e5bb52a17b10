"""The store's pools: a connection that the server has ended is not lent, and a server that is back is noticed at once.

Adds no question to the server to a statement that works: a look at the socket when a connection is lent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool

from headwater.storage.options import StoreOptions
from headwater.storage.outages import Outage, pauses
from headwater.storage.postgres.connect import Connection, Parting, Pool, StoreConnection, adapt, connection_settings

log = logging.getLogger(__name__)

Opened = TypeVar("Opened")

CONNECT_MOST: Final = 5
"""How long one try to connect may take, in seconds. One that is begun while the network is cut is not answered when it
is mended: the system repeats the first packet ever more seldom."""
_AT_REST: Final = frozenset({TransactionStatus.IDLE, TransactionStatus.UNKNOWN})
"""How a connection is given back about which the server is not asked any more."""


class Door:
    """The way of one pool to the server: while nobody answers, one of its connections knocks and the others wait.

    The pool's own pauses begin at one second and double, for each connection by itself.
    """

    def __init__(self, name: str) -> None:
        self._outage = Outage(log, f"{name} waits for the database", f"{name} reaches the database again")
        self._knocking = asyncio.Lock()
        self._closed = asyncio.Event()

    async def enter(self, connect: Callable[[], Awaitable[Opened]]) -> Opened:
        """Connect, as soon as the server lets anybody in. Raises what the driver raised once the door is closed."""
        try:
            opened = await connect()
        except psycopg.OperationalError as error:
            refused = error
        else:
            self._outage.ends()
            return opened
        async with self._knocking:
            for pause in pauses():
                if self._closed.is_set():
                    break
                with contextlib.suppress(psycopg.OperationalError):
                    opened = await connect()
                    self._outage.ends()
                    return opened
                self._outage.goes_on(refused)  # who comes later finds the server awake, or is the next to knock
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._closed.wait()
        raise refused

    def close(self) -> None:
        """Let those that wait give up."""
        self._closed.set()


class _Entering(Parting, psycopg.AsyncConnection[Any]):
    """A connection that comes through a door."""

    @classmethod
    async def connect(  # type: ignore[override]  # the pool passes its own settings through
        cls, conninfo: str = "", *, door: Door | None = None, **settings: Any
    ) -> Self:
        open_one = super().connect
        if door is None:
            return await open_one(conninfo, **settings)
        return await door.enter(lambda: open_one(conninfo, **settings))


class _StoreEntering(_Entering, StoreConnection):
    """One for the store's own statements."""


class _Begun(Awaitable[None]):
    """The rest of a coroutine that waits for something."""

    def __init__(self, work: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._work = work
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        waits_for = self._waits_for
        while True:
            try:
                yield waits_for
            except BaseException as error:  # noqa: BLE001  # it is the coroutine's to take
                go_on = partial(self._work.throw, error)
            else:
                go_on = partial(self._work.send, None)
            try:
                waits_for = go_on()
            except StopIteration:
                return


class _WatchfulPool(AsyncConnectionPool[StoreConnection]):
    """A pool that is at work again as soon as its server is.

    1. What is lent was not ended by the server, as far as anybody here was told.
    2. Connecting does not fail while the pool is open; whoever waits for a connection waits for its own time-out.
    3. What is given back is the pool's again, or replaced, whoever is cancelled at what point.
    """

    def __init__(self, kind: type[Any], options: StoreOptions, name: str, **settings: Any) -> None:
        self._door = Door(name)
        settings_of_one = connection_settings(options)
        settings_of_one["connect_timeout"] = min(CONNECT_MOST, settings_of_one["connect_timeout"])
        super().__init__(
            options.url,
            connection_class=kind,
            max_size=options.pool_size,
            timeout=options.timeout,
            open=False,
            kwargs=settings_of_one | {"door": self._door},
            name=name,
            **settings,
        )

    async def getconn(self, timeout: float | None = None) -> StoreConnection:  # noqa: ASYNC109  # the driver's signature
        """Lend a connection; see the driver. Those that have ended are replaced on the way."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            conn = await super().getconn(max(0.0, deadline - time.monotonic()))
            if not ended(conn):
                return conn
            await conn.close()
            await self.putconn(conn)

    async def putconn(self, conn: StoreConnection) -> None:
        """Take a connection back, also from one who is cancelled meanwhile.

        The driver waits here when another waits for a connection, and cancelled then it gives this one to nobody: the
        pool would be the smaller by it for ever.
        """
        giving = super().putconn(conn)
        if conn.pgconn.transaction_status in _AT_REST:
            # Mostly nobody waits: then it is done at once, without a task, which would cost some 30 µs for each loan.
            try:
                waits_for = giving.send(None)
            except StopIteration:
                return
            await asyncio.shield(asyncio.ensure_future(_Begun(giving, waits_for)))
        else:
            await asyncio.shield(asyncio.ensure_future(giving))

    async def close(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109  # the driver's signature
        """Close every connection, also those that are being opened. Safe to repeat."""
        self._door.close()
        await super().close(timeout)


def ended(conn: Parting) -> bool:
    """Whether the server has ended a connection that is idle, or is about to. Asks nobody, and reads nothing.

    A server says nothing unasked but its goodbye, and closes the socket a while after it. (It does tell a connection
    that listens what it listens for: such a one is of no use to who borrows it next.)
    """
    if conn.closed:
        return True
    conn.pgconn.is_busy()  # has the driver look at what it has read already
    if conn.goodbye:
        return True
    arrived = select.poll()
    arrived.register(conn.pgconn.socket, select.POLLIN)
    return bool(arrived.poll(0))


async def _configure(conn: Connection) -> None:
    adapt(conn.adapters, conn.info.parameter_status("TimeZone"))


def make_pool(options: StoreOptions) -> Pool:
    """Return a pool, not yet open, for the store's ordinary statements."""
    name = f"headwater-{options.schema}"
    return _WatchfulPool(_StoreEntering, options, name, min_size=min(2, options.pool_size), configure=_configure)


def handlers_pool(options: StoreOptions) -> Pool:
    """Return a pool, not yet open, for handlers' transactions: with the driver's own ways of reading JSON."""
    return _WatchfulPool(_Entering, options, f"headwater-handlers-{options.schema}", min_size=0)
