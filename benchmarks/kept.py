"""Filled stores that are kept from one run to the next, each a database of a server in a folder.

Filling is done without durability, and made durable at its end; measuring, on a server that is durable throughout.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from benchmarks.fill import EVENT_BYTES, fill
from headwater.storage.embedded import EmbeddedPostgres
from headwater.storage.options import StoreOptions
from headwater.storage.postgres import schema

FORMAT: Final = "a complete store of benchmarks, format 2"
"""What is said of a database when it is filled; another format is filled anew."""
BETWEEN: Final = 10
"""So many streams lie between each other."""
SERVER_BYTES: Final = 10 * 2**30
"""What the server takes for its log and for sorting."""
FILLING: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "1h",
    "shared_buffers": "512MB",
    "maintenance_work_mem": "1GB",
}
_KEPT = """
SELECT "datname" FROM pg_database WHERE shobj_description("oid", 'pg_database') = %s
"""


def database_of(size: int) -> str:
    """Return the name of the database that holds a store of that size."""
    return f"headwater_bench_growth_{size}"


def url_of(server: str, size: int) -> str:
    """Return the URL of a filled store."""
    return urlsplit(server)._replace(path=f"/{database_of(size)}").geturl()


def prepare(folder: Path, sizes: Sequence[int], told: Callable[[str], None]) -> None:
    """Fill what is missing in the folder. Raises OSError when the disk cannot hold it."""
    folder.mkdir(parents=True, exist_ok=True)
    with EmbeddedPostgres(folder, settings=FILLING) as server:
        missing = [size for size in sorted(sizes) if database_of(size) not in _filled(server.url)]
        needed = sum(missing) * EVENT_BYTES + SERVER_BYTES
        free = shutil.disk_usage(folder).free
        if missing and needed > free:
            events = ", ".join(f"{size:,}" for size in missing)
            raise OSError(
                f"{folder}: {events} events need {needed / 2**30:.0f} GiB, and {free / 2**30:.0f} GiB are free"
            )
        for size in missing:
            begun = time.monotonic()
            _make(server.url, size)
            told(f"{size:,} events are in {folder} after {time.monotonic() - begun:.0f} s")
    os.sync()


async def bring_up_to_date(server: str, size: int) -> None:
    """Migrate a store that an older version of this program filled."""
    await schema.migrate(StoreOptions(url=url_of(server, size)))


def _filled(server: str) -> set[str]:
    with psycopg.connect(server, autocommit=True) as conn:
        return {name for (name,) in conn.execute(_KEPT, [FORMAT]).fetchall()}


def _make(server: str, size: int) -> None:
    name = sql.Identifier(database_of(size))
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(name))
        conn.execute(sql.SQL("CREATE DATABASE {}").format(name))
        asyncio.run(bring_up_to_date(server, size))
        fill(url_of(server, size), size, between=BETWEEN)
        # Only what is complete is found again.
        conn.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(name, sql.Literal(FORMAT)))
