"""Transient subscriptions hear of other programs' appends by hints."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest
import redis.asyncio

from headwater.storage import transient
from headwater.storage.model import ALL
from headwater.storage.opening import connect
from tests.plugins.events import events
from tests.plugins.waiting import until


@pytest.mark.parity("T109", "L5", "L22")
async def test_a_hint_of_another_program_wakes_a_transient_subscription(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transient, "POLL_INTERVAL", 3600.0)
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


async def has_listener(redis_url: str, database_url: str) -> bool:
    """Whether anybody listens to the hints of a database."""
    name = urlsplit(database_url).path.strip("/")
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        return bool(await client.pubsub_channels(f"*{name}*"))


async def has_no_listener(redis_url: str, database_url: str) -> bool:
    return not await has_listener(redis_url, database_url)
