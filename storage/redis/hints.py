"""Publishes and listens to hints on one Redis channel, and survives whatever happens to that Redis.

Never raises an outage to its caller and never delivers an event.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from headwater.storage.errors import ConfigurationError
from headwater.storage.redis.codec import decode, encode

log = logging.getLogger(__name__)

TIMEOUT: Final = 0.25
"""How long a connect or a publish may take, in seconds: a hint that takes longer is worth nothing."""

REST: Final = 1.0
"""How long publishing rests after it failed, in seconds, so that a Redis that is down costs next to nothing."""

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0
"""The pauses between tries to listen again, in seconds: doubled from the first to the longest."""

PING_INTERVAL: Final = 5
"""How often a listening connection is tried, in seconds: a peer that vanished without a word is noticed so."""

_OUTAGES: Final = (RedisError, OSError, TimeoutError)


class RedisHints:
    """The hints of one store. Belongs to the event loop on which it is first used.

    1. ``publish`` never raises for an outage, and does not even try for a while after one.
    2. ``listen`` never ends by an outage: it connects again and goes on; what was announced meanwhile is lost.
    """

    def __init__(self, url: str, channel: str) -> None:
        """Connect to nothing yet. Raises ConfigurationError for a URL that cannot be one."""
        self._channel = channel
        self._rest_until = 0.0
        try:
            # One connection for all that is published, and one deadline around it: a pool that tries the connection
            # first, and a deadline for each step of the client, take longer than Redis itself.
            self._redis = self._client(url, single_connection_client=True)
            # A listener waits for as long as nothing is announced; its own pings say whether anybody is there.
            self._listening = self._client(url)
        except ValueError as error:
            raise ConfigurationError(f"redis_url: {error}") from error

    @staticmethod
    def _client(url: str, **settings: Any) -> Redis:
        return Redis.from_url(
            url,
            socket_timeout=None,
            socket_connect_timeout=TIMEOUT,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            **settings,
        )

    async def publish(self, head: int) -> None:
        """Announce a head; at most :data:`TIMEOUT` later it is done or given up."""
        if time.monotonic() < self._rest_until:
            return
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._redis.publish(self._channel, encode(head))
        except _OUTAGES as error:
            self._rest_until = time.monotonic() + REST
            log.warning("no hints for %.0f s, readers poll meanwhile: %s", REST, error)

    async def listen(self) -> AsyncIterator[int]:
        """Yield heads as they are announced, until cancelled."""
        pause = FIRST_PAUSE
        while True:
            try:
                async with self._listening.pubsub(ignore_subscribe_messages=True) as messages:
                    await messages.subscribe(self._channel)
                    asked = False
                    while True:
                        message = await messages.get_message(timeout=PING_INTERVAL)
                        if message is not None:
                            pause, asked = FIRST_PAUSE, False
                            if message["type"] == "message" and (head := decode(message["data"])) is not None:
                                yield head
                        elif asked:
                            raise TimeoutError("the server does not answer")
                        else:
                            asked = True
                            await messages.ping()
            except _OUTAGES as error:
                log.info("listening for hints again in %.1f s: %s", pause, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def close(self) -> None:
        """Close the connections. Safe to repeat."""
        for client in (self._redis, self._listening):
            with suppress(*_OUTAGES):
                await client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<RedisHints {self._channel!r}{' resting' if time.monotonic() < self._rest_until else ''}>"
