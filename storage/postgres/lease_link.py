"""The connection that holds leases: opened, checked and asked with a deadline, always from one thread.

Never reconnects by itself: when anything is wrong it is closed, and everything it held is free for others.
"""

from __future__ import annotations

import random
import selectors
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import psycopg
from psycopg.abc import PQGen

from headwater.storage.errors import ConfigurationError, PoolerRefused, StoreUnavailable
from headwater.storage.leases import News
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.failures import translated
from headwater.storage.postgres.statements import Statements

Result = TypeVar("Result")

_POOLER: Final = (
    "a transaction-mode pooler stands before the database: leases are session locks and need a direct connection; "
    "give one as session_url"
)


LOOKS: Final = 16
"""So often in the length of a lease sessions look at one another, all together: the more there are, the less each."""
MOST_LOOKS: Final = 4
"""So often one session looks in that time at most."""


class _BoundedConnection(psycopg.Connection[Any]):
    """A synchronous connection whose waiting ends at a deadline, also when the server is there but does not answer."""

    deadline = float("inf")

    def wait(self, gen: PQGen[Result], interval: float = 0.05, timeout: float | None = None) -> Result:  # noqa: ARG002
        """Wait as the driver does, no longer than until the deadline."""
        return super().wait(self._bounded(gen), interval)

    def _bounded(self, gen: PQGen[Result]) -> PQGen[Result]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() >= self.deadline:
                    raise TimeoutError
                wanted = gen.send(ready)
        except StopIteration as end:
            result: Result = end.value
            return result


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """How a lease link is opened."""

    store: StoreOptions
    lease: float
    """The server ends the session after hearing nothing for so many seconds."""
    host: str


class LeaseLink:
    """One session of the server. Not for use by several threads at a time."""

    def __init__(self, settings: LinkSettings, sql: Statements, tell: Callable[[News], None]) -> None:
        """Connect. ``tell`` gets the news that come, on this thread, from now on."""
        self._sql = sql
        self._tell = tell
        self._patience = settings.lease
        self.asked_at = float("-inf")
        """When the last statement that was answered had been sent, by the monotonic clock."""
        self.look_at = time.monotonic()
        """When a heartbeat is due that also looks at the other sessions, whatever else was asked meanwhile."""
        self._suspects: set[int] = set()
        seconds = max(1, int(settings.lease // 3))
        with translated():
            self._conn: _BoundedConnection = _BoundedConnection.connect(
                settings.store.session_url or settings.store.url,
                autocommit=True,
                prepare_threshold=None,
                application_name=f"{settings.store.application_name} leases of {settings.host}"[:63],
                connect_timeout=max(2, int(settings.lease)),
                keepalives_idle=seconds,
                keepalives_interval=seconds,
                keepalives_count=2,
                tcp_user_timeout=int(settings.lease * 1000),
            )
        try:
            self.backend = self._set_up(settings)
        except BaseException:
            self.close()
            raise

    def _set_up(self, settings: LinkSettings) -> int:
        """Make sure that this is a session of its own, then let its time run; returns the server's number for it."""
        backend: int = self.ask(self._sql.lease_heartbeat)[0][0]
        self._refuse_poolers(settings, backend)
        lease_ms = round(settings.lease * 1000)
        limits = {"lease_ms": lease_ms, "lock_wait_ms": max(100, lease_ms // 6)}
        try:
            self.ask(self._sql.lease_session_settings, limits)
        except ConfigurationError as error:
            raise ConfigurationError(f"leases need a server with idle_session_timeout: {error.problem}") from error
        now, timeout = self.ask(self._sql.lease_session_check)[0]
        if now != backend:
            raise PoolerRefused(_POOLER)
        if timeout != lease_ms:
            raise ConfigurationError(f"the server keeps idle_session_timeout at {timeout} ms instead of {lease_ms} ms")
        # From here on it is certain that one session answers: what is asked many times a second is planned once.
        self._conn.prepare_threshold = 1
        self._conn.add_notify_handler(lambda notice: self._heard(notice.payload))
        self.ask(self._sql.listen_to_news)
        return backend

    def _refuse_poolers(self, settings: LinkSettings, backend: int) -> None:
        """Look whether statements of this connection may be answered by other sessions.

        A second connection holds a transaction open meanwhile: a pooler that hands sessions out by transaction gives
        it the session that seemed to be ours, or gives us another one.
        """
        with (
            translated(),
            _BoundedConnection.connect(
                settings.store.session_url or settings.store.url, connect_timeout=max(2, int(settings.lease))
            ) as other,
        ):
            other.deadline = time.monotonic() + self._patience
            theirs = other.execute(self._sql.lease_heartbeat).fetchone()
            if theirs == (backend,) or self.ask(self._sql.lease_heartbeat)[0][0] != backend:
                raise PoolerRefused(_POOLER)

    def ask(self, statement: bytes, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Send one statement; returns its rows. Raises StoreUnavailable after the length of the lease at the latest."""
        sent = time.monotonic()
        self._conn.deadline = sent + self._patience
        with translated():
            try:
                cursor = self._conn.execute(statement, parameters)
                rows = cursor.fetchall() if cursor.description else []
            except TimeoutError:
                self.close()
                raise
        self.asked_at = sent
        return rows

    def heartbeat(self) -> None:
        """Show the server that we are here. Raises StoreUnavailable when another session answers, or none."""
        looks = time.monotonic() >= self.look_at
        backend, *seen = self.ask(self._sql.lease_heartbeat_and_look if looks else self._sql.lease_heartbeat)[0]
        if backend != self.backend:
            self.close()
            raise StoreUnavailable("another session of the server answered: the one with the leases is gone")
        if looks:
            self._end_outlasting(*seen)

    def _end_outlasting(self, sessions: int, suspects: list[int]) -> None:
        """End sessions that outlast their lease because the server's clock was set back: those seen so a lease apart.

        A session that lives has been heard in between, at a time that is not in the future.
        """
        if outlasting := self._suspects.intersection(suspects):
            self.ask(self._sql.end_outlasting_sessions, {"backends": list(outlasting)})
        self._suspects = set(suspects)
        # At no fixed pace: sessions that began together must not look together.
        pace = self._patience * max(1 / MOST_LOOKS, sessions / LOOKS) * random.uniform(0.5, 1.5)
        self.look_at = time.monotonic() + (self._patience if suspects else pace)

    def _heard(self, word: str) -> None:
        with suppress(ValueError):  # a newer program may have news that mean nothing here
            self._tell(News(word))

    def rest(self, seconds: float, woken: int) -> None:
        """Wait, at most so long, until ``woken`` is readable. Raises StoreUnavailable when the server has gone.

        News are told meanwhile. They are no sign of life: only an answer shows that the server hears us.
        """
        with selectors.DefaultSelector() as selector, translated():
            selector.register(woken, selectors.EVENT_READ)
            session = selector.register(self._conn.fileno(), selectors.EVENT_READ)
            if any(key is session for key, _ in selector.select(max(0.0, seconds))):
                # News and a goodbye are read here; what else the server says unasked (a changed setting) means nothing.
                self._conn.pgconn.consume_input()
                if self._conn.pgconn.status != psycopg.pq.ConnStatus.OK:
                    raise psycopg.OperationalError("the server closed the connection")
        while (notice := self._conn.pgconn.notifies()) is not None:
            self._heard(notice.extra.decode())

    @property
    def closed(self) -> bool:
        """Whether this end, or the server, has closed it."""
        return bool(self._conn.closed)

    def close(self) -> None:
        """End the session: its locks are free as soon as the server sees it."""
        self._conn.close()

    def __repr__(self) -> str:
        return f"<LeaseLink to backend {self.backend}, {'closed' if self.closed else 'open'}>"
