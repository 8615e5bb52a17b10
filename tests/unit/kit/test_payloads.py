"""What handlers see of typed, old and encrypted events: at the moment they get them, whatever was read before."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import pytest

from headwater import (
    ALL,
    ERASED,
    App,
    Encryption,
    EventTypes,
    NewEvent,
    RecordedEvent,
    RetryPolicy,
    SubscriptionOptions,
)
from headwater.storage.memory import MemoryEventStore
from headwater.storage.pages import OpeningReader, StoredReader
from headwater.subscriptions.consumers import LocalConsumer
from headwater.subscriptions.fanout import SharedReader
from headwater.subscriptions.handler import Handler
from headwater.subscriptions.replay import replay
from headwater.subscriptions.testing.runtime import MemoryRuntime
from headwater.subscriptions.testing.scenario import Scenario
from headwater.subscriptions.transient import transient
from tests.plugins.waiting import until

MASTERS: Final = {"first": os.urandom(32)}

types = EventTypes()


@types.register(version=2)
@dataclass(frozen=True)
class Registered:
    name: str
    country: str


@types.upcaster("Registered", 1)
def with_country(data: dict[str, Any]) -> dict[str, Any]:
    if data["name"] == "poison":
        raise ValueError("no country")
    return {**data, "country": "NO"}


def masters() -> Mapping[str, bytes]:
    return MASTERS


encryption = Encryption(master_keys=masters)


def country_is_known(event: RecordedEvent) -> bool:
    return event.erased or event.data["country"] == "NO"


def name_of(event: RecordedEvent) -> Any:
    return event.object if event.erased else event.object.name


HERE = "tests.unit.kit.test_payloads"
OPTIONS = SubscriptionOptions(retry=RetryPolicy(attempts=2))


def app() -> App:
    return App("customers", types=f"{HERE}:types", encryption=f"{HERE}:encryption")


def registered(name: str, subject: str | None = None, version: int = 1) -> NewEvent:
    return NewEvent("Registered", {"name": name}, subject=subject or name, schema_version=version)


@pytest.mark.parity("L35")
async def test_an_event_that_cannot_be_lifted_is_parked_as_a_failed_one_is_and_the_others_go_on() -> None:
    seen: list[Any] = []

    async def handle(event: RecordedEvent) -> None:
        seen.append(event.object)

    async with MemoryRuntime(app()) as runtime:
        await runtime.run("customers", handle, OPTIONS)
        await runtime.append("a", registered("ada"), registered("poison"))
        await runtime.append("b", registered("bob"))
        await runtime.caught_up()
        assert seen == [Registered("ada", "NO"), Registered("bob", "NO")]
        [parked] = runtime.parked("customers")
        assert (parked.event.position, parked.attempts) == (2, 2)
        assert "UpcastingFailed" in str(parked.error)
        assert "version 1 at position 2" in str(parked.error)


async def test_a_selector_a_key_and_a_mapper_see_the_payload_as_handlers_do() -> None:
    seen: list[Any] = []

    async def handle(name: Any) -> None:
        seen.append(name)

    options = SubscriptionOptions(
        selector=f"{HERE}:country_is_known",
        mapper=f"{HERE}:name_of",
        partition_by="data.country",
        consumers=2,
        retry=RetryPolicy(attempts=1),
    )
    async with MemoryRuntime(app()) as runtime:
        await runtime.store.append("a", [registered("erased")])
        await runtime.store.forget("erased")
        await runtime.append("a", registered("ada"), NewEvent(data=Registered("bob", "SE")), registered("poison"))
        await runtime.run("names", handle, options)
        await runtime.caught_up()
        assert sorted(map(repr, seen)) == ["'ada'", "ERASED"]
        assert [parked.event.position for parked in runtime.parked("names")] == [4]


@pytest.mark.parity("L35")
async def test_what_was_read_before_a_subject_was_forgotten_is_erased_when_it_is_delivered() -> None:
    entered, go_on, seen = asyncio.Event(), asyncio.Event(), []

    async def handle(event: RecordedEvent) -> None:
        seen.append(event.data if event.erased else event.data["name"])
        entered.set()
        await go_on.wait()

    async with MemoryRuntime(app()) as runtime:
        await runtime.run("customers", handle, OPTIONS)
        await runtime.append("a", registered("ada"), registered("bob"), registered("carol"))
        await entered.wait()
        assert runtime.status("customers").head == 3, "all three were read"
        await runtime.store.forget("bob")
        go_on.set()
        await runtime.caught_up()
        assert seen == ["ada", ERASED, "carol"]


async def test_a_parked_event_that_is_retried_after_its_subject_was_forgotten_is_erased() -> None:
    seen: list[Any] = []

    async def handle(event: RecordedEvent) -> None:
        if not event.erased:
            raise ValueError("not yet")
        seen.append(event.data)

    async with MemoryRuntime(app()) as runtime:
        await runtime.run("customers", handle, OPTIONS)
        await runtime.append("a", registered("ada"))
        await runtime.caught_up()
        await runtime.store.forget("ada")
        runtime.retry_parked("customers")
        await until(lambda: seen == [ERASED], what="the parked event to be handled")


@pytest.mark.parity("L35")
async def test_a_replay_a_pull_and_a_shared_reader_reveal_nothing_of_a_forgotten_subject() -> None:
    seen: list[Any] = []

    async def handle(event: RecordedEvent) -> None:
        seen.append(event.object if event.erased else event.object.name)

    async with MemoryEventStore(types=types, encryption=encryption) as store:
        await store.append("a", [registered("old"), registered("ada"), registered("bob")])
        shared = SharedReader(StoredReader(store), max_age=0)
        reader = OpeningReader(shared, store.payloads)
        kept = [await shared.read_page(ALL, after, 10) for after in (3, 0)]
        await store.append("a", [registered("ada again", "ada"), registered("carol")])
        kept.append(await shared.read_page(ALL, 3, 10))
        assert "ada" not in repr([event.raw_data for page in kept for event in page.events])
        consumer = LocalConsumer(Handler(handle, OPTIONS), None, opener=store.payloads)
        await replay("before", OPTIONS, [consumer], reader, after=1, until=5)
        await store.forget("ada")
        await replay("after", OPTIONS, [consumer], reader, after=1, until=5)
        assert seen == ["ada", "bob", "ada again", "carol", ERASED, "bob", ERASED, "carol"]
        options = SubscriptionOptions(batch_size=10, poll_interval=timedelta(milliseconds=10))
        async with transient("pulled", options, reader, opener=store.payloads) as subscription:
            batch = await anext(aiter(subscription))
            assert [event.erased for event in batch.events] == [False, True, False, True, False]
            assert batch.events[0].object == Registered("old", "NO")
            await batch.ack()
        await consumer.close()
        await shared.close()


async def test_a_scenario_may_have_a_store_with_event_types() -> None:
    seen: list[Any] = []
    scenario = Scenario(lambda event: seen.append(event.object), store=MemoryEventStore(types=types))
    outcome = await scenario.when(("a", NewEvent(data=Registered("bob", "SE"))))
    await scenario.end()
    assert (outcome.error, seen) == (None, [Registered("bob", "SE")])
