"""Hints over a real Redis that is killed, paused, flushed, or says things that are not true."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from redis.asyncio import Redis

from headwater.storage.embedded import EmbeddedRedis
from headwater.storage.errors import ConfigurationError
from headwater.storage.model import MAX_GATE, MAX_SESSION, Gate
from headwater.storage.redis import RedisHints
from headwater.storage.redis import hints as hints_module
from headwater.storage.redis.codec import channel_of, decode, encode
from tests.plugins.waiting import DEADLINE, until

CHANNEL = "headwater:test:hints"


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Let a process answer nothing for the length of the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def listening(url: str, channel: str = CHANNEL) -> AsyncIterator[list[int]]:
    """Collect what is announced for the length of the block; returns once the server knows the listener."""
    heard: list[int] = []

    async def listen(hints: RedisHints) -> None:
        async for head in hints.listen():
            heard.append(head)  # noqa: PERF401  # it never ends: each one counts as it comes

    async with RedisHints(url, channel) as hints:
        task = asyncio.create_task(listen(hints))
        try:
            await subscribed(url, channel)
            yield heard
        finally:
            task.cancel()
            await asyncio.wait([task])


async def subscribed(url: str, channel: str = CHANNEL) -> None:
    """Wait until somebody listens."""
    async with Redis.from_url(url) as client:

        async def listeners() -> bool:
            return bool((await client.pubsub_numsub(channel))[0][1])

        await until(listeners)


async def heard_again(hints: RedisHints, heard: list[int], head: int) -> None:
    """Publish until it is heard."""

    async def published() -> bool:
        await hints.publish(head)
        return head in heard

    await until(published)


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    """A server of the test's own, to be broken."""
    with EmbeddedRedis() as started:
        yield started


async def test_an_announced_head_reaches_every_listener(redis_url: str, redis_namespace: str) -> None:
    async with (
        listening(redis_url, redis_namespace) as one,
        listening(redis_url, redis_namespace) as two,
        RedisHints(redis_url, redis_namespace) as hints,
    ):
        await heard_again(hints, one, 7)
        await until(lambda: 7 in two)


async def test_stores_that_share_a_redis_do_not_hear_each_other(redis_url: str, redis_namespace: str) -> None:
    here, there = channel_of(redis_namespace, "headwater"), channel_of(redis_namespace, "other")
    async with (
        listening(redis_url, here) as mine,
        RedisHints(redis_url, there) as other,
        RedisHints(redis_url, here) as hints,
    ):
        await other.publish(5)
        await heard_again(hints, mine, 7)
        assert 5 not in mine


async def test_a_redis_that_is_not_there_costs_the_publisher_nothing_but_a_warning() -> None:
    async with RedisHints("redis://127.0.0.1:1/0", CHANNEL) as hints:
        for head in range(1000):
            await hints.publish(head)


async def test_a_killed_redis_is_survived_and_found_again(server: EmbeddedRedis) -> None:
    async with listening(server.url) as heard, RedisHints(server.url, CHANNEL) as hints:
        await heard_again(hints, heard, 1)
        server.stop()
        await hints.publish(2)
        with EmbeddedRedis(server.port) as again:
            assert again.url == server.url
            await heard_again(hints, heard, 3)


async def test_a_paused_redis_is_survived(server: EmbeddedRedis) -> None:
    async with listening(server.url) as heard, RedisHints(server.url, CHANNEL) as hints:
        await heard_again(hints, heard, 1)
        assert server.pid is not None
        with frozen(server.pid):
            await hints.publish(2)
        await heard_again(hints, heard, 3)


async def test_a_flushed_redis_goes_on_as_before(server: EmbeddedRedis) -> None:
    async with listening(server.url) as heard, RedisHints(server.url, CHANNEL) as hints:
        async with Redis.from_url(server.url) as client:
            await client.flushall()
        await heard_again(hints, heard, 1)


async def test_a_listener_whose_connection_is_ended_listens_again(server: EmbeddedRedis) -> None:
    async with listening(server.url) as heard, RedisHints(server.url, CHANNEL) as hints:
        async with Redis.from_url(server.url) as client:
            await client.client_kill_filter(_type="pubsub")
        await heard_again(hints, heard, 1)


@pytest.mark.parity("L11")
async def test_what_is_not_a_head_is_passed_over(redis_url: str, redis_namespace: str) -> None:
    async with listening(redis_url, redis_namespace) as heard, Redis.from_url(redis_url) as client:
        for message in (b"", b"x", b"-1", b"1.5", b"\xff\xfe", b"9" * 40, "٣".encode(), b"12"):
            await client.publish(redis_namespace, message)
        await until(lambda: 12 in heard)
        assert heard == [12]


async def test_a_gate_is_told_before_the_head_that_it_came_with(
    redis_url: str, redis_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints_module, "TIMEOUT", DEADLINE)  # each hint is sent once: none may be given up
    told: list[object] = []

    async def listen(hints: RedisHints) -> None:
        async for head in hints.listen():
            told.append(head)  # noqa: PERF401  # it never ends: each one counts as it comes

    async with RedisHints(redis_url, redis_namespace) as listener, RedisHints(redis_url, redis_namespace) as hints:
        listener.on_gate(lambda head, gate: told.append((head, gate)))
        task = asyncio.create_task(listen(listener))
        await subscribed(redis_url, redis_namespace)
        await hints.publish(6)
        await hints.publish(7, Gate(1234, 99))
        await until(lambda: len(told) == 3)
        assert told == [6, (7, (1234, 99)), 7]
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("head", [0, 1, 2**63 - 1])
@pytest.mark.parametrize("gate", [None, Gate(0, 0), Gate(MAX_SESSION, MAX_GATE)])
def test_a_hint_survives_the_wire(head: int, gate: Gate | None) -> None:
    assert decode(encode(head, gate)) == (head, gate)


@pytest.mark.parametrize(
    "message",
    [
        b"7 gate",
        b"7 gate ",
        b"7 gate 1",
        b"7 gate 1 ",
        b"7 gate  1",
        b"7 gate x 1",
        b"7 gate -1 1",
        b"7 gate 2147483648 1",
    ],
)
def test_what_is_no_gate_is_none(message: bytes) -> None:
    assert decode(message)[1] is None


@pytest.mark.parametrize("message", [None, 7, b"gate 1 1", b" gate 1 1", b"begun 7", b"7 gate 1 1" + b" " * 99])
def test_what_is_no_head_is_none(message: object) -> None:
    assert decode(message)[0] is None


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://localhost:port"])
def test_a_url_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        RedisHints(url, CHANNEL)
