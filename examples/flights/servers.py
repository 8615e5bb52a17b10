"""The servers of a run: embedded ones that end with it, or those that were named; and what is prepared in them.

Every problem is a ConfigurationError that says it in one line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from redis import Redis
from redis.exceptions import RedisError

from examples.flights.options import Options
from examples.flights.statements import SQL, TABLES
from headwater import ConfigurationError
from headwater.storage.embedded import EmbeddedPostgres, EmbeddedRedis
from headwater.storage.options import StoreOptions

CONNECT_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the run's data is."""

    database_url: str
    redis_url: str
    description: str


@contextlib.contextmanager
def servers(options: Options) -> Iterator[Servers]:
    """Start what was not named, make the read models' tables, and take everything away again at the end.

    With ``keep`` the data stays: below the output folder, or in the database that was named.
    """
    with contextlib.ExitStack() as stack:
        database_url, redis_url = options.database_url, options.redis_url
        folder = options.out / "data" if options.keep and database_url is None else None
        if database_url is not None:
            StoreOptions(url=database_url)  # says what is wrong with a URL that can never work
        else:
            database_url = stack.enter_context(EmbeddedPostgres(folder)).url
        if redis_url is None:
            redis_url = stack.enter_context(EmbeddedRedis()).url
        else:
            _try_redis(redis_url)
        version = _make_tables(database_url, f"remove {folder}" if folder else "drop them, or name another database")
        if options.database_url is not None and not options.keep:
            stack.callback(_drop_everything, database_url)
        kind = "Embedded" if options.database_url is None else "The given"
        yield Servers(database_url, redis_url, f"{kind} PostgreSQL {version}")


def _try_redis(redis_url: str) -> None:
    """Ask whether anybody is there. Headwater would do without, but who names a server wants that one."""
    try:
        with Redis.from_url(redis_url, socket_connect_timeout=CONNECT_SECONDS, socket_timeout=CONNECT_SECONDS) as redis:
            redis.ping()
    except (RedisError, ValueError) as error:
        raise ConfigurationError(f"the Redis cannot be used: {error}") from error


def _make_tables(database_url: str, remedy: str) -> str:
    """Make the read models' tables; returns the server's version."""
    try:
        with psycopg.connect(database_url, connect_timeout=CONNECT_SECONDS) as conn:
            there = [name for (name,) in conn.execute(SQL["schemas_there"])]
            if there:
                names = " and ".join(there)
                raise ConfigurationError(f"the database holds an earlier run (schema {names}): {remedy}")
            conn.execute(TABLES)
            return conn.info.parameter_status("server_version") or "of unknown version"
    except psycopg.Error as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigurationError(f"the database cannot be used: {reason}") from error


def _drop_everything(database_url: str) -> None:
    with psycopg.connect(database_url, connect_timeout=CONNECT_SECONDS) as conn:
        conn.execute(SQL["drop_schemas"])
