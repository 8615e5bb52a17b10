"""Translates what the driver raises into the store's own errors: the one place that knows SQLSTATEs.

Never decides what to do about a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
import psycopg_pool

from headwater.storage.errors import (
    ConfigurationError,
    HeadwaterError,
    InvalidArgument,
    PoolerRefused,
    RangeArchived,
    SchemaMissing,
    StoreClosed,
    StoreUnavailable,
)

_NO_SUCH_TABLES: Final = frozenset({"3F000", "42P01", "42883", "42704"})
_ARCHIVED: Final = "HW420"
_OTHERS_STATEMENTS: Final = frozenset({"42P05", "26000"})
"""A statement that was prepared here is unknown to the server's session, or one was prepared there by somebody else."""
_BAD_VALUE: Final = ("22", "54")
_TRY_AGAIN: Final = ("08", "40", "53", "55", "57", "58")
_WRONG_SETTINGS: Final = ("28", "3D", "42")
_NO_FAULT_OF_THE_STATEMENT: Final = ("25006", "53", "58")
"""No writes allowed, no room or connections left, the disk failing: it stays so while sessions, and leases, live on."""


@contextmanager
def translated() -> Iterator[None]:
    """Let no driver error out of the block: each becomes an error of :mod:`headwater.storage.errors`.

    And no cancellation is lost in it: on Python 3.11 the driver and its pool, which wait by ``asyncio.wait_for``, go on
    as if nothing had been asked when it comes together with what they waited for.
    """
    asked = _cancellations()
    try:
        yield
        if _cancellations() > asked:
            raise asyncio.CancelledError
    except (psycopg.Error, TimeoutError) as error:
        raise translate(error) from error
    except UnicodeEncodeError as error:
        # The driver encodes text only when it is sent.
        raise InvalidArgument("value", "contains a lone surrogate, which is no Unicode text") from error


def _cancellations() -> int:
    """Return how often the running task was asked to end, 0 outside of any."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return 0
    return 0 if task is None else task.cancelling()


@contextmanager
def outages_translated() -> Iterator[None]:
    """Let what the server refuses whatever the statement is out of the block as StoreUnavailable, all else as it is.

    A connection that broke is not among it: the statement itself may have broken the server.
    """
    try:
        yield
    except psycopg.Error as error:
        if isinstance(error, psycopg_pool.PoolTimeout) or (error.sqlstate or "").startswith(_NO_FAULT_OF_THE_STATEMENT):
            raise translate(error) from error
        raise


def translate(error: psycopg.Error | TimeoutError) -> HeadwaterError:
    """Return the store's error for one of the driver's."""
    if isinstance(error, psycopg_pool.PoolClosed):
        return StoreClosed()
    if isinstance(error, psycopg_pool.PoolTimeout | TimeoutError):
        return StoreUnavailable("the database did not answer in time")
    assert isinstance(error, psycopg.Error)
    problem, state = str(error).strip() or type(error).__name__, error.sqlstate
    if state is None:
        # The driver refuses some values itself (DataError); all else without a state is a connection that broke.
        if isinstance(error, psycopg.DataError | psycopg.NotSupportedError | psycopg.ProgrammingError):
            return InvalidArgument("value", problem)
        return StoreUnavailable(problem)
    if state == _ARCHIVED:
        return RangeArchived(1, int(error.diag.message_detail or 0))
    if state in _NO_SUCH_TABLES:
        return SchemaMissing(f"{problem} (has 'headwater migrate' been run on this database and schema?)")
    if state in _OTHERS_STATEMENTS:
        return PoolerRefused(
            "a transaction-mode pooler seems to stand before the database: say so by giving a direct connection as "
            f"session_url, or HEADWATER_SESSION_URL ({problem})"
        )
    if state == "25006" or state.startswith(_TRY_AGAIN):
        return StoreUnavailable(problem, state)
    if state.startswith(_BAD_VALUE):
        return InvalidArgument("value", problem)
    if state.startswith(_WRONG_SETTINGS):
        return ConfigurationError(problem)
    return StoreUnavailable(problem, state)


def connection_broke(error: psycopg.Error) -> bool:
    """Whether the session ended, so that it is unknown whether the statement took effect."""
    if not isinstance(error, psycopg.OperationalError) or isinstance(
        error, psycopg_pool.PoolTimeout | psycopg_pool.PoolClosed
    ):
        return False
    return error.sqlstate is None or error.sqlstate in {"57P01", "57P02", "57P03"} or error.sqlstate.startswith("08")
