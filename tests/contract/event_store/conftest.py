"""Runs each test of the contract on both stores, and on one whose events are in ranges."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, TypeAlias

import psycopg
import pytest

from headwater.storage.memory import MemoryEventStore
from headwater.storage.postgres.store import PostgresEventStore
from headwater.storage.store import EventStore

Transaction: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]


ABOUT_EVENTS = ("test_append", "test_read", "test_links", "test_delete")
"""The files that are about events: only for those it matters where the events are kept."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on every kind of store that it says something about."""
    if "store_url" in metafunc.fixturenames:
        kinds = ["memory", "postgres"]
        if metafunc.module.__name__.endswith(ABOUT_EVENTS):
            kinds.append("partitioned")
        metafunc.parametrize("store_url", kinds, indirect=True)


@pytest.fixture
def store_url(request: pytest.FixtureRequest) -> str | None:
    """The URL of a fresh database; None for memory."""
    if request.param == "memory":
        return None
    url: str = request.getfixturevalue("database_url" if request.param == "postgres" else "partitioned_url")
    return url


@pytest.fixture
async def store(store_url: str | None) -> AsyncIterator[EventStore]:
    """An open store, empty, that may delete for good."""
    opened = (
        MemoryEventStore(hard_deletes=True)
        if store_url is None
        else await PostgresEventStore.open(store_url, hard_deletes=True)
    )
    async with opened:
        yield opened


@pytest.fixture
async def careful_store(store_url: str | None) -> AsyncIterator[EventStore]:
    """An open store, empty, with the settings that nobody has changed."""
    opened = MemoryEventStore() if store_url is None else await PostgresEventStore.open(store_url)
    async with opened:
        yield opened


@pytest.fixture
def transaction(store: EventStore, store_url: str | None) -> Transaction:
    """Enters a transaction of the caller's own, to be passed as ``conn``."""
    if isinstance(store, MemoryEventStore):
        return store.transaction

    @asynccontextmanager
    async def begin() -> AsyncIterator[Any]:
        assert store_url is not None
        async with await psycopg.AsyncConnection.connect(store_url) as conn, conn.transaction():
            yield conn

    return begin


class Undone(Exception):
    """Raised by a test to make its transaction roll back."""


@asynccontextmanager
async def undone(transaction: Transaction) -> AsyncIterator[Any]:
    """Enter a transaction that rolls back in the end."""
    with suppress(Undone):
        async with transaction() as conn:
            yield conn
            raise Undone
