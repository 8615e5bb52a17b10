"""Whatever is passed to a public call: a typed error or a right result, alike in both stores, and no other harm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.storage.errors import HeadwaterError, StoreUnavailable
from headwater.storage.memory import MemoryEventStore
from headwater.storage.model import Filter, NewEvent, RecordedEvent, Snapshot, StreamInfo
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.statements import Statements
from headwater.storage.postgres.store import PostgresEventStore
from tests.integration.storage.nasty import Attempt, attempts, durable_attempts
from tests.integration.storage.nasty import settings as store_settings

CALLS = 20
"""Calls of one example."""
REFUSED_AT_COMMIT: Final = {"HW409", "HW410", "23505"}


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
            await store.stream_info("bystander"),
            await store.stream_info("bystander-links"),
            await store.read_all(where=Filter(tags=("by",), streams=("bystander",))),
            await store.read_all(limit=3),
        ]

    def close(self) -> None:
        for store in self._stores:
            self._runner.run(store.close())

    def attempt(self, calls: list[Attempt]) -> None:
        """Make calls on both stores; each answer is right or a typed error, and both answer alike."""
        self._runner.run(self._attempt(calls))

    async def _attempt(self, calls: list[Attempt]) -> None:
        durable, memory = self._stores
        head = await durable.head()
        for call in calls:
            kinds = [await self._kind(store, call) for store in self._stores]
            assert kinds[0] == kinds[1], call
        for store, before in zip(self._stores, self._bystanders, strict=True):
            assert await self._bystander(store) == before
        assert await durable.head() == await memory.head()
        # Whatever was written, it is the same in both, and nothing else is there.
        news = [await store.read_all(start=head + 1, limit=1000) for store in self._stores]
        assert [_facts(event) for event in news[0]] == [_facts(event) for event in news[1]]
        lists = [await store.list_streams(page_size=5, sort="stream_id", descending=True) for store in self._stores]
        assert lists[0].total_entries == lists[1].total_entries
        assert [_standing(info) for info in lists[0].entries] == [_standing(info) for info in lists[1].entries]

    def attempt_durably(self, calls: list[Attempt]) -> None:
        """Make calls that only the durable store has, each in a transaction of its own."""
        self._runner.run(self._attempt_durably(calls))

    async def _attempt_durably(self, calls: list[Attempt]) -> None:
        durable, _ = self._stores
        for call in calls:
            with suppress(HeadwaterError):
                if call.name == "append_at_commit":
                    await _at_commit(durable, call)
                else:
                    await call.make(durable)
        assert await self._bystander(durable) == self._bystanders[0]
        # Whatever was written and is not deleted stands without a gap.
        head = await durable.head()
        assert [event.position for event in await durable.read_all(start=head - 50)] == list(
            range(max(1, head - 50), head + 1)
        )

    async def _kind(self, store: Any, call: Attempt) -> str:
        try:
            await call.make(store)
        except HeadwaterError as error:
            return type(error).__name__
        return "answered"


def _facts(event: RecordedEvent) -> Any:
    return event.position, event.stream, event.version, event.id, event.type, event.data, event.tags


def _standing(info: StreamInfo) -> Any:
    return info.name, info.version, info.status, info.truncated_before


async def _at_commit(durable: PostgresEventStore, call: Attempt) -> None:
    refused: str | None = None
    try:
        async with durable.connection() as conn, conn.transaction():
            await replace(call, options=call.options | {"conn": conn}).make(durable)
    except StoreUnavailable as error:
        refused = error.sqlstate
    assert refused is None or refused in REFUSED_AT_COMMIT, call


@pytest.fixture
def stores(database_url: str) -> Iterator[Stores]:
    """Both stores."""
    with asyncio.Runner() as runner, closing(Stores(database_url, runner)) as stores:
        yield stores


def generated(examples: int, attempts: st.SearchStrategy[Attempt] = attempts) -> Callable[[Test], Test]:
    """Give a test so many examples."""

    def decorate(test: Test) -> Test:
        checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
        checks.append(HealthCheck.large_base_example)
        given_calls = given(calls=st.lists(attempts, min_size=CALLS, max_size=CALLS))
        return settings(max_examples=examples, deadline=None, suppress_health_check=checks)(given_calls(test))

    return decorate


generated_durably = partial(generated, attempts=durable_attempts)


@pytest.mark.parity("L41", "L46", "E25")
@generated(examples=40)
def test_generated_input_is_answered_and_harms_nobody(stores: Stores, calls: list[Attempt]) -> None:
    stores.attempt(calls)


@pytest.mark.parity("L41", "L46")
@generated_durably(examples=15)
def test_generated_imports_and_appends_at_commit_are_answered_and_harm_nobody(
    stores: Stores, calls: list[Attempt]
) -> None:
    stores.attempt_durably(calls)


@pytest.mark.parity("E26", "L41")
@given(chosen=store_settings)
@settings(max_examples=300, deadline=None)
def test_generated_settings_are_taken_or_refused(chosen: dict[str, Any]) -> None:
    with suppress(HeadwaterError):
        options = StoreOptions.read(**chosen, environment={})
        assert repr(options).startswith("<StoreOptions ")
        Statements(options.schema)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@generated_durably(examples=10_000 // CALLS)
def test_ten_thousand_generated_imports_and_appends_at_commit_are_answered_and_harm_nobody(
    stores: Stores, calls: list[Attempt]
) -> None:
    stores.attempt_durably(calls)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@generated(examples=50_000 // CALLS)
def test_fifty_thousand_generated_inputs_are_answered_and_harm_nobody(stores: Stores, calls: list[Attempt]) -> None:
    stores.attempt(calls)
