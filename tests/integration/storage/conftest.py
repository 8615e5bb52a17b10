"""A store on a database of the test's own, and builders of events."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from headwater.storage.postgres.store import PostgresEventStore


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresEventStore]:
    """An open store, empty."""
    async with await PostgresEventStore.open(database_url) as store:
        yield store
