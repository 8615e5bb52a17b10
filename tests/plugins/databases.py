"""A fresh, migrated database for each test: cloned from a template, dropped afterwards."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from headwater.storage.options import StoreOptions
from headwater.storage.postgres.partitioning import partition
from headwater.storage.postgres.schema import migrate


@contextmanager
def new_database(server: str, template: str = "template0") -> Iterator[str]:
    """Make a database with a name of its own, give its URL, drop it."""
    name = f"headwater_test_{secrets.token_hex(6)}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    # FORCE: a test that failed may have left sessions, and its own failure is what matters then.
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(create)
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        with psycopg.connect(server, autocommit=True) as conn:
            conn.execute(drop)
            # Roles belong to the server: those of stores in this database begin with its name.
            for (role,) in conn.execute("SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", (f"{name}.",)):
                conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.fixture(scope="session")
def template_database(database_server: str) -> Iterator[str]:
    """The name of a database with the current schema in it; nobody may stay connected to it."""
    with new_database(database_server) as url:
        asyncio.run(migrate(StoreOptions(url=url)))
        yield urlsplit(url).path.lstrip("/")


@pytest.fixture
def database_url(database_server: str, template_database: str) -> Iterator[str]:
    """The URL of a database of the test's own, with the current schema in it."""
    with new_database(database_server, template_database) as url:
        yield url


@pytest.fixture(scope="session")
def partitioned_template(database_server: str, template_database: str) -> Iterator[str]:
    """The name of a database with a store in ranges of a few positions."""
    with new_database(database_server, template_database) as url:
        asyncio.run(partition(StoreOptions(url=url), 16))
        yield urlsplit(url).path.lstrip("/")


@pytest.fixture
def partitioned_url(database_server: str, partitioned_template: str) -> Iterator[str]:
    """The URL of a database of the test's own, with a store in ranges of 16 positions."""
    with new_database(database_server, partitioned_template) as url:
        yield url


@pytest.fixture
def empty_database_url(database_server: str) -> Iterator[str]:
    """The URL of a database of the test's own, with nothing in it."""
    with new_database(database_server) as url:
        yield url


@pytest.fixture
def redis_namespace() -> str:
    """A name for the channels of one test: a Redis server has no other walls between its publishers."""
    return f"headwater-test-{secrets.token_hex(6)}"
