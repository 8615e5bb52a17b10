"""Runs each test of the contract in both places."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from headwater.storage.postgres.store import PostgresEventStore
from tests.contract.subscriptions.worlds import MemoryWorld, PostgresWorld, World


@pytest.fixture(params=["memory", "postgres"])
def world_url(request: pytest.FixtureRequest) -> str | None:
    """The URL of a fresh database; None for memory."""
    if request.param == "memory":
        return None
    url: str = request.getfixturevalue("database_url")
    return url


@pytest.fixture
async def world(world_url: str | None) -> AsyncIterator[World]:
    """Where leases and checkpoints live."""
    if world_url is None:
        yield MemoryWorld()
        return
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(await PostgresEventStore.open(world_url))
        yield PostgresWorld(store, stack)
