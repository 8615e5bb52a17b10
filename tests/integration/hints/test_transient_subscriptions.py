"""Transient subscriptions hear of other programs' appends by hints."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import psycopg
import pytest
import redis.asyncio

from headwater.storage import transient
from headwater.storage.model import ALL
from headwater.storage.opening import connect
from headwater.storage.redis import hints
from tests.plugins.events import events
from tests.plugins.waiting import DEADLINE, until


@pytest.mark.parity("T109", "L5")
async def test_a_hint_of_another_program_wakes_a_transient_subscription(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transient, "POLL_INTERVAL", 3600.0)
    monkeypatch.setattr(hints, "TIMEOUT", DEADLINE)  # the hint is sent once: it may not be given up
    async with (
        connect(database_url, redis_url=redis_url) as one,
        connect(database_url, redis_url=redis_url) as two,
        one.subscribe(ALL) as batches,
    ):
        waiting = asyncio.ensure_future(anext(batches))
        await until(lambda: has_listener(redis_url, database_url))
        await two.append("s", events(2))
        async with asyncio.timeout(20):
            assert [event.position for event in await waiting] == [1, 2]


async def test_hints_are_listened_to_only_while_somebody_follows(database_url: str, redis_url: str) -> None:
    async with connect(database_url, redis_url=redis_url) as store:
        assert not await has_listener(redis_url, database_url)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(store.subscribe(ALL))
            await stack.enter_async_context(store.subscribe("s"))
            await until(lambda: has_listener(redis_url, database_url))
        await until(lambda: has_no_listener(redis_url, database_url))


@pytest.mark.parity("L22")
@pytest.mark.parametrize("source", [None, "other", "s"])
async def test_an_append_is_read_back_only_by_who_follows_its_stream(
    database_url: str, redis_url: str, source: str | None
) -> None:
    async with (
        connect(database_url, redis_url=redis_url) as one,
        connect(database_url, redis_url=redis_url) as two,
        AsyncExitStack() as stack,
    ):
        batches = None if source is None else await stack.enter_async_context(two.subscribe(source))
        for _ in range(10):
            await one.append("s", events(2))
        if batches is not None:
            await one.append("other", events(1))
            found = 0
            while found < (20 if source == "s" else 1):
                found += len(await anext(batches))
    # Sessions tell what they did at the latest when they end.
    expected = {None: (20, 0), "other": (21, 1), "s": (21, 20)}[source]
    await until(lambda: counted(database_url, expected))


async def counted(database_url: str, expected: tuple[int, int]) -> bool:
    """Whether the server has counted so many events written, and so many read."""
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        cursor = await conn.execute(
            "SELECT n_tup_ins, idx_tup_fetch + seq_tup_read FROM pg_stat_user_tables WHERE relname = 'events'"
        )
        row = await cursor.fetchone()
    assert row is not None
    assert row[1] <= expected[1], "more events were read than anybody follows"
    return tuple(row) == expected


async def has_listener(redis_url: str, database_url: str) -> bool:
    """Whether anybody listens to the hints of a database."""
    name = urlsplit(database_url).path.strip("/")
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        return bool(await client.pubsub_channels(f"*{name}*"))


async def has_no_listener(redis_url: str, database_url: str) -> bool:
    return not await has_listener(redis_url, database_url)
