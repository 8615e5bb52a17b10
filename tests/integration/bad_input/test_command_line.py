"""Whatever is typed: an answer, or one line on standard error and status 2; never a traceback, nobody harmed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions
from headwater.storage.model import NewEvent
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.store import PostgresEventStore
from headwater.subscriptions.app import App
from headwater.subscriptions.options import SubscriptionOptions
from tests.integration.bad_input.nasty import HANDLER, command_lines
from tests.integration.bad_input.test_operators import generated
from tests.plugins.command_line import headwater

LINES = 20
"""Command lines of one example."""


async def prepare(url: str) -> None:
    """Register a subscription for anybody to play with, and one that nobody may touch."""
    app = App("shop")
    for name in ("bystander", "mine"):
        app.register(name, HANDLER, SubscriptionOptions(start=2))
    options = StoreOptions(url=url)
    async with await PostgresEventStore.open(options=options) as store:
        await store.append("bystander", [NewEvent("Stood") for _ in range(3)])
    async with await Client.open(ClusterOptions(store=options)) as client:
        await client.register(app)


async def bystander(url: str) -> Any:
    """Return what nobody may have changed."""
    async with await Client.open(ClusterOptions(store=StoreOptions(url=url))) as client:
        [state] = await client.partitions("bystander")
        return state.phase, state.checkpoint, state.parked, await client.audit("bystander"), await client.status()


@pytest.fixture
def prepared(database_url: str) -> str:
    """The URL of a store with both."""
    asyncio.run(prepare(database_url))
    return database_url


def run(url: str, lines: list[list[str]]) -> None:
    """Run command lines, each in this process, and see how they end."""
    before = asyncio.run(bystander(url))
    for words in lines:
        if "bystander" in words:
            continue
        done = headwater(*words, HEADWATER_DATABASE_URL=url)
        if words[:1] == ["migrations"] and done.returncode == 1:
            # Documented: a migration is pending. Then it is listed, and nothing is complained of.
            assert done.stdout, (words, done)
            assert done.stderr == "", (words, done)
            continue
        assert done.returncode in (0, 2), (words, done)
        assert "Traceback" not in done.stderr, (words, done)
        if done.returncode == 2:
            assert (done.stdout, len(done.stderr.splitlines())) == ("", 1), (words, done)
            assert done.stderr.startswith("headwater: "), (words, done)
    after = asyncio.run(bystander(url))
    assert after[:4] == before[:4]
    assert after[4].head == before[4].head


@pytest.mark.parity("L41", "L46")
@given(lines=st.lists(command_lines(), min_size=LINES, max_size=LINES))
@generated(examples=5)
def test_generated_command_lines_are_answered_in_one_line(prepared: str, lines: list[list[str]]) -> None:
    run(prepared, lines)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(lines=st.lists(command_lines(), min_size=LINES, max_size=LINES))
@generated(examples=5_000 // LINES)
def test_five_thousand_generated_command_lines_are_answered_in_one_line(prepared: str, lines: list[list[str]]) -> None:
    run(prepared, lines)
