"""Whatever is passed to a public call: a typed error or a right result, alike in both stores, and no other harm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.storage.errors import HeadwaterError
from headwater.storage.memory import MemoryEventStore
from headwater.storage.model import NewEvent, RecordedEvent, Snapshot
from headwater.storage.postgres.store import PostgresEventStore
from tests.integration.storage.nasty import Attempt, attempts

CALLS = 20
"""Calls of one example."""


Test: TypeAlias = Callable[..., None]


class Stores:
    """Both stores, with a stream each that nobody may touch, and the loop they live on."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self._runner = runner
        durable = runner.run(PostgresEventStore.open(url, hard_deletes=True, pool_size=2, timeout=30))
        self._stores: tuple[Any, ...] = durable, MemoryEventStore(hard_deletes=True)
        self._bystanders = [runner.run(self._prepare(store)) for store in self._stores]

    async def _prepare(self, store: Any) -> list[RecordedEvent]:
        await store.append("bystander", [NewEvent("Stood", {"n": n}, tags=("by",)) for n in range(3)])
        await store.link("bystander-links", await store.read("bystander"))
        await store.record_snapshot(Snapshot("bystander", 3, "State", {"n": 3}))
        return await self._bystander(store)

    async def _bystander(self, store: Any) -> list[Any]:
        return [
            await store.read("bystander"),
            await store.read("bystander-links"),
            await store.read_snapshot("bystander"),
        ]

    def close(self) -> None:
        for store in self._stores:
            self._runner.run(store.close())

    def attempt(self, calls: list[Attempt]) -> None:
        """Make calls on both stores; each answer is right or a typed error, and both answer alike."""
        self._runner.run(self._attempt(calls))

    async def _attempt(self, calls: list[Attempt]) -> None:
        for call in calls:
            kinds = [await self._kind(store, call) for store in self._stores]
            assert kinds[0] == kinds[1], call
        for store, before in zip(self._stores, self._bystanders, strict=True):
            assert await self._bystander(store) == before
        durable, memory = self._stores
        assert await durable.head() == await memory.head()

    async def _kind(self, store: Any, call: Attempt) -> str:
        try:
            await call.make(store)
        except HeadwaterError as error:
            return type(error).__name__
        return "answered"


@pytest.fixture
def stores(database_url: str) -> Iterator[Stores]:
    """Both stores."""
    with asyncio.Runner() as runner, closing(Stores(database_url, runner)) as stores:
        yield stores


def generated(examples: int) -> Callable[[Test], Test]:
    """Give a test so many examples."""

    def decorate(test: Test) -> Test:
        checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
        checks.append(HealthCheck.large_base_example)
        given_calls = given(calls=st.lists(attempts, min_size=CALLS, max_size=CALLS))
        return settings(max_examples=examples, deadline=None, suppress_health_check=checks)(given_calls(test))

    return decorate


@pytest.mark.parity("L41", "L46", "E25")
@generated(examples=40)
def test_generated_input_is_answered_and_harms_nobody(stores: Stores, calls: list[Attempt]) -> None:
    stores.attempt(calls)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@generated(examples=50_000 // CALLS)
def test_fifty_thousand_generated_inputs_are_answered_and_harm_nobody(stores: Stores, calls: list[Attempt]) -> None:
    stores.attempt(calls)
