"""The same random history on Postgres and in memory gives the same answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any, Final, TypeAlias

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.storage.memory import MemoryEventStore
from headwater.storage.model import ALL, EVERYTHING
from headwater.storage.postgres.store import PostgresEventStore
from tests.integration.histories.operations import STREAMS, Operation, Together, answers, comparable, follow, steps

EMPTY: Final = """
    SET LOCAL headwater.allow_change = 'on';
    TRUNCATE headwater.events, headwater.event_tags, headwater.links, headwater.streams, headwater.snapshots;
    UPDATE headwater.head SET position = 0, created_at = '-infinity', times_ordered = true;
"""


Test: TypeAlias = Callable[..., None]


class Pair:
    """A store on Postgres that is emptied for each history, and the loop it lives on."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._store = runner.run(PostgresEventStore.open(url, hard_deletes=True, pool_size=2))

    def close(self) -> None:
        self._runner.run(self._store.close())

    def compare(self, history: list[Operation | Together]) -> None:
        """Play a history on both stores."""
        self._runner.run(self._compare(history))

    async def _compare(self, history: list[Operation | Together]) -> None:
        async with self._store.connection() as conn, conn.transaction():
            await conn.execute(EMPTY, prepare=False)
        memory = MemoryEventStore(hard_deletes=True)
        for step in history:
            durable = await answers(self._store, step, self._transaction)
            assert durable == await answers(memory, step, memory.transaction), step
        assert await everything(self._store) == await everything(memory)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        async with self._store.connection() as conn, conn.transaction():
            yield conn


async def everything(store: Any) -> Any:
    """Return all that can be read of a store."""
    listed = await store.list_streams()
    found = [comparable(list(listed.entries)), comparable(await store.read(ALL))]
    return [*found, *[comparable(await follow(store, name, 0, 1000, EVERYTHING, None)) for name in STREAMS]]


@pytest.fixture
def pair(database_url: str) -> Iterator[Pair]:
    """Both stores."""
    with asyncio.Runner() as runner, closing(Pair(database_url, runner)) as pair:
        yield pair


def histories(examples: int, length: int) -> Callable[[Test], Test]:
    """Give a test so many histories of up to so many steps."""

    def decorate(test: Test) -> Test:
        checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
        given_histories = given(history=st.lists(steps, min_size=3, max_size=length))
        return settings(max_examples=examples, deadline=None, suppress_health_check=checks)(given_histories(test))

    return decorate


@histories(examples=60, length=25)
def test_memory_answers_as_postgres_does(pair: Pair, history: list[Operation | Together]) -> None:
    pair.compare(history)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@histories(examples=3000, length=60)
def test_memory_answers_as_postgres_does_in_long_histories(pair: Pair, history: list[Operation | Together]) -> None:
    pair.compare(history)
