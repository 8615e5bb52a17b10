"""The surroundings that every question gets: a server, databases of its own, how long and how often to measure."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from benchmarks import kept
from benchmarks.fill import fill
from headwater.storage.embedded import EmbeddedPostgres, EmbeddedRedis
from headwater.storage.options import StoreOptions
from headwater.storage.postgres import schema

SERVER_SETTINGS: Final = {
    "shared_buffers": "512MB",
    # Checkpoints of the server come between rounds, when they are asked for, and not within one.
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    # One for each host and partition: the server's own 64 are enough for about 6,400 of them.
    "max_locks_per_transaction": "256",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured: in full, or just enough to see that everything works."""

    rounds: int = 5
    seconds: float = 2.0
    """How long callers go on in one round."""
    quick: bool = False
    only: tuple[str, ...] = ()
    """The cases to measure, by name or by what their names end with; empty: all."""
    sizes: tuple[int, ...] = (100_000, 1_000_000)
    """Events in the store, for the question how cost grows."""

    def wants(self, case: str) -> bool:
        """Return whether a case should be measured."""
        return not self.only or any(case == part or case.endswith(f" {part}") for part in self.only)


@dataclass(frozen=True, slots=True)
class Bench:
    """What a question measures with."""

    server: str
    """The URL of a Postgres server, as a superuser."""
    redis_url: str | None
    effort: Effort
    kept: bool = False
    """Whether the server has filled stores, which stay."""

    @asynccontextmanager
    async def filled(self, size: int, streams_between: int) -> AsyncIterator[str]:
        """Give the URL of a store of so many events: one that is kept, or one that is filled now and dropped."""
        if self.kept and size in self.effort.sizes:
            await kept.bring_up_to_date(self.server, size)
            yield kept.url_of(self.server, size)
            return
        async with self.database() as url:
            await schema.migrate(StoreOptions(url=url))
            await asyncio.to_thread(fill, url, size, between=streams_between)
            yield url

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """Make an empty database, give its URL, drop it. What was written before is on disk then."""
        name = f"headwater_bench_{secrets.token_hex(4)}"
        drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
        async with await psycopg.AsyncConnection.connect(self.server, autocommit=True) as conn:
            await conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            if not self.effort.quick:
                await conn.execute("CHECKPOINT")
        try:
            yield urlsplit(self.server)._replace(path=f"/{name}").geturl()
        finally:
            async with await psycopg.AsyncConnection.connect(self.server, autocommit=True) as conn:
                await conn.execute(drop)

    @asynccontextmanager
    async def redis(self) -> AsyncIterator[str]:
        """Give the URL of the Redis server that was named, or of one that runs for as long as it is needed."""
        if self.redis_url is not None:
            yield self.redis_url
            return
        with await asyncio.to_thread(EmbeddedRedis().start) as embedded:
            yield embedded.url


@contextmanager
def server(url: str | None, folder: Path | None = None) -> Iterator[str]:
    """Give the URL of the server that was named, or of one of this program's own with durable commits."""
    if url is not None:
        yield url
        return
    with EmbeddedPostgres(folder, settings=SERVER_SETTINGS) as embedded:
        yield embedded.url
