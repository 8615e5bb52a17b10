"""Publishes and listens to hints on one Redis channel, and survives whatever happens to that Redis.

Never raises an outage to its caller and never delivers an event.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from headwater.storage.errors import ConfigurationError
from headwater.storage.model import Gate
from headwater.storage.outages import Outage, pauses
from headwater.storage.redis.codec import decode, encode

log = logging.getLogger(__name__)

TIMEOUT: Final = 0.25
"""How long a connect or a publish may take, in seconds: a hint that takes longer is worth nothing."""

PING_INTERVAL: Final = 5
"""How often a listening connection is tried, in seconds: a peer that vanished without a word is noticed so."""

_OUTAGES: Final = (RedisError, OSError, TimeoutError)


class RedisHints:
    """The hints of one store. Belongs to the event loop on which it is first used.

    1. ``publish`` never raises for an outage, and does not even try for a while after one: a tenth of its length.
    2. ``listen`` never ends by an outage: it connects again and goes on; what was announced meanwhile is lost.
    """

    def __init__(self, url: str, channel: str) -> None:
        """Connect to nothing yet. Raises ConfigurationError for a URL that cannot be one."""
        self._channel = channel
        self._rest_until = 0.0
        self._rests: Iterator[float] | None = None
        self._told_of_gates: list[Callable[[int, Gate], None]] = []
        self._unsent = Outage(log, "hints rest, readers poll meanwhile", "hints are sent again")
        self._unheard = Outage(log, "hints are not heard, readers poll meanwhile", "hints are heard again")
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

    def on_gate(self, tell: Callable[[int, Gate], None]) -> None:
        """Call ``tell`` with each head that comes with a gate, before it is yielded, while somebody listens."""
        self._told_of_gates.append(tell)

    async def publish(self, head: int, gate: Gate | None = None) -> None:
        """Announce a head, and where the next append can be waited for; done or given up after :data:`TIMEOUT`."""
        if time.monotonic() < self._rest_until:
            return
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._redis.publish(self._channel, encode(head, gate))
            self._rests = None
            self._unsent.ends()
        except _OUTAGES as error:
            self._unsent.goes_on(error)
            if self._rests is None:
                self._rests = pauses()
            self._rest_until = time.monotonic() + next(self._rests)

    async def listen(self) -> AsyncIterator[int]:
        """Yield heads as they are announced, until cancelled."""
        tries: Iterator[float] | None = None
        while True:
            try:
                async with self._listening.pubsub(ignore_subscribe_messages=True) as messages:
                    await messages.subscribe(self._channel)
                    asked = False
                    while True:
                        message = await messages.get_message(timeout=PING_INTERVAL)
                        if message is not None:
                            tries, asked = None, False
                            self._unheard.ends()
                            if message["type"] != "message":
                                continue
                            head, gate = decode(message["data"])
                            if head is None:
                                continue
                            if gate is not None:
                                for tell in self._told_of_gates:
                                    tell(head, gate)
                            yield head
                        elif asked:
                            raise TimeoutError("the server does not answer")
                        else:
                            asked = True
                            await messages.ping()
            except _OUTAGES as error:
                self._unheard.goes_on(error)
                if tries is None:
                    tries = pauses()
                await asyncio.sleep(next(tries))

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
