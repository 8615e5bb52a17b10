"""Whatever is registered or asked of operators' calls: a typed error or a right answer, and nobody else is harmed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions
from headwater.storage.errors import HeadwaterError, InvalidArgument
from headwater.storage.model import NewEvent
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.store import PostgresEventStore
from headwater.subscriptions.app import App
from headwater.subscriptions.encoding import decode, encode
from headwater.subscriptions.options import SubscriptionOptions
from tests.integration.bad_input.nasty import HANDLER, Call, client_calls, made, option_fields, registrations

Test: TypeAlias = Callable[..., None]
CALLS = 20
"""Calls of one example."""


class Deployment:
    """A deployment with a subscription that nobody may touch, and the loop that its client lives on."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._store = StoreOptions(url=url)
        self._client = runner.run(self._open())
        self._before = runner.run(self._bystander())

    async def _open(self) -> Client:
        async with await PostgresEventStore.open(options=self._store) as store:
            await store.append("bystander", [NewEvent("Stood") for _ in range(3)])
        client = await Client.open(ClusterOptions(store=self._store))
        app = App("others")
        for name in ("bystander", "mine"):
            app.register(name, HANDLER, SubscriptionOptions(start=2))
        await client.register(app)
        await client.pause("bystander")
        return client

    async def _bystander(self) -> Any:
        # Its lag and that of time are the events' affair, not its own.
        [state] = await self._client.partitions("bystander")
        return state.phase, state.checkpoint, state.epoch, state.parked, await self._client.audit("bystander")

    def close(self) -> None:
        self._runner.run(self._client.close())

    def call(self, calls: list[Call]) -> None:
        """Make calls; each is answered or refused with a typed error, and the bystander stays as it was."""
        self._runner.run(self._call(calls))

    async def _call(self, calls: list[Call]) -> None:
        for name, arguments, options in calls:
            if "bystander" in (*arguments, *options.values()):
                continue
            with contextlib.suppress(HeadwaterError):
                await getattr(self._client, name)(*arguments, **options)
        assert await self._bystander() == self._before

    def register(self, asked: list[tuple[Any, Any, dict[str, Any]]]) -> None:
        """Register; what can be written down can be stored, and read back in any process."""
        self._runner.run(self._register(asked))

    async def _register(self, asked: list[tuple[Any, Any, dict[str, Any]]]) -> None:
        for name, handler, fields in asked:
            if name == "bystander":
                continue
            options = checked(fields)
            app = App("mine")
            with contextlib.suppress(HeadwaterError):
                app.register(name, handler, options)
                await self._client.register(app)
                [state, *_] = await self._client.partitions(name)
                assert state.subscription == name
        assert await self._bystander() == self._before


def checked(fields: dict[str, Any]) -> Any:
    """Make options, or find that they are refused with a typed error; what is stored of them is what they were."""
    options = made(SubscriptionOptions, fields)
    if isinstance(options, Exception):
        assert isinstance(options, HeadwaterError), (fields, options)
        return SubscriptionOptions()
    with contextlib.suppress(HeadwaterError):  # an error class of a function has no import path
        stored = decode(encode(options))
        assert decode(encode(stored)) == stored
    return options


@pytest.fixture
def deployment(database_url: str) -> Iterator[Deployment]:
    """A deployment that nobody runs."""
    with asyncio.Runner() as runner, closing(Deployment(database_url, runner)) as deployment:
        yield deployment


def generated(examples: int) -> Callable[[Test], Test]:
    """Give a test so many examples."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    checks.append(HealthCheck.large_base_example)
    return settings(max_examples=examples, deadline=None, suppress_health_check=checks, derandomize=True)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda client: client.move("mine", "\ud800"), "node"),
        (lambda client: client.move("mine", "nowhere"), "node"),
        (lambda client: client.command("mine", "move", {"node": "nowhere"}), "node"),
        (lambda client: client.rewind("mine", -1), "to"),
        (lambda client: client.rewind("mine", 1), "to"),
        (lambda client: client.rewind("mine", 1, dry_run=True), "to"),
        (lambda client: client.command("mine", "rewind", {"to": 1}), "to"),
        (lambda client: client.command("mine", "rewind"), "to"),
        (lambda client: client.command("mine", "move", {"node": None}), "node"),
        (lambda client: client.command("mine", "pause", {"reason": "\ud800"}), "arguments"),
        (lambda client: client.command("mine", "pause", ["reason"]), "arguments"),
        (lambda client: client.pause("mine", reason="nul\0"), "reason"),
        (lambda client: client.retry_parked("mine", reason="nul\0"), "reason"),
        (lambda client: client.retry_parked("mine", reason="\ud800"), "reason"),
        (lambda client: client.retry_parked("mine", rate=1e-300), "rate"),
        (lambda client: client.discard_parked("mine", limit=-1), "limit"),
        (lambda client: client.audit("mine", limit="all"), "limit"),
        (lambda client: client.command("mine", ["pause"]), "verb"),
        (lambda client: client.command("mine", "resume", partition="0"), "partition"),
        (lambda client: client.pause("nul\0"), "subscription"),
        (lambda client: client.drain(7), "name"),
    ],
)
async def test_a_request_that_can_never_be_obeyed_is_refused(
    database_url: str, call: Callable[[Client], Awaitable[object]], argument: str
) -> None:
    app = App("mine")
    app.register("mine", HANDLER, SubscriptionOptions())
    async with await Client.open(ClusterOptions(store=StoreOptions(url=database_url))) as client:
        await client.register(app)
        with pytest.raises(InvalidArgument) as refused:
            await call(client)
        assert refused.value.argument == argument
        assert await client.audit() == []


CALL_LISTS = st.lists(client_calls, min_size=CALLS, max_size=CALLS)
REGISTRATION_LISTS = st.lists(registrations, min_size=CALLS, max_size=CALLS)


@pytest.mark.parity("L41", "E11", "E25", "E26")
@given(fields=option_fields)
@generated(examples=500)
def test_generated_options_are_taken_or_refused_where_they_are_written(fields: dict[str, Any]) -> None:
    checked(fields)


@pytest.mark.parity("L41", "L46")
@given(asked=REGISTRATION_LISTS)
@generated(examples=10)
def test_generated_registrations_are_stored_or_refused(deployment: Deployment, asked: list[Any]) -> None:
    deployment.register(asked)


@pytest.mark.parity("L41", "L46")
@given(calls=CALL_LISTS)
@generated(examples=15)
def test_generated_calls_of_operators_are_answered_and_harm_nobody(deployment: Deployment, calls: list[Call]) -> None:
    deployment.call(calls)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(asked=REGISTRATION_LISTS)
@generated(examples=10_000 // CALLS)
def test_ten_thousand_generated_registrations_are_stored_or_refused(deployment: Deployment, asked: list[Any]) -> None:
    deployment.register(asked)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(calls=CALL_LISTS)
@generated(examples=20_000 // CALLS)
def test_twenty_thousand_generated_calls_of_operators_are_answered_and_harm_nobody(
    deployment: Deployment, calls: list[Call]
) -> None:
    deployment.call(calls)
