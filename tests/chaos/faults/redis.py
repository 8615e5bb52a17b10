"""Faults of the hints: killed, frozen, flushed, lying. The net beneath them is the poll, once a second."""

from __future__ import annotations

import asyncio
import os
import signal

import redis

from tests.chaos.faults.base import Fault
from tests.chaos.processes import frozen, gone
from tests.chaos.world import PATIENCE, World
from tests.plugins.waiting import until

PLANTED = "planted"


class RedisFault(Fault[World]):
    """Something happens to the server of hints."""

    @property
    def pid(self) -> int:
        """The server's process number."""
        return self.world.servers.redis.pid


class KillRedis(RedisFault):
    name = "Redis killed"
    what = "SIGKILL; started again when events have been handled without it"

    async def inject(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    async def took_effect(self) -> bool:
        return gone(self.pid) and not self.world.servers.redis.running

    async def heal(self) -> None:
        await asyncio.to_thread(self.world.servers.redis.start)


class PauseRedis(RedisFault):
    name = "Redis paused"
    what = "SIGSTOP: takes connections and says nothing; SIGCONT when events have been handled without it"

    async def inject(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    async def took_effect(self) -> bool:
        return frozen(self.pid)

    async def heal(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


class FlushRedis(RedisFault):
    name = "Redis flushed"
    what = "everything it holds is deleted, and every listener is thrown out"

    async def inject(self) -> None:
        # After another fault all listeners may still be on their way back.
        await until(lambda: asyncio.to_thread(self._flush), deadline=PATIENCE, what="waiting for a listener")

    async def took_effect(self) -> bool:
        """What was held is gone, and so is everyone who listened."""
        return await asyncio.to_thread(self._done)

    def _flush(self) -> bool:
        with redis.Redis.from_url(self.world.servers.redis.url) as server:
            self.thrown_out = _ids(server)
            server.set(PLANTED, 1)
            server.flushall()
            server.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        return bool(self.thrown_out)

    def _done(self) -> bool:
        with redis.Redis.from_url(self.world.servers.redis.url) as server:
            return not server.exists(PLANTED) and not self.thrown_out & _ids(server)

    def listeners(self) -> set[str]:
        """Return the numbers of the connections that listen; a server never gives one twice."""
        with redis.Redis.from_url(self.world.servers.redis.url) as server:
            return _ids(server)


def _ids(server: redis.Redis) -> set[str]:
    return {client["id"] for client in server.client_list(_type="pubsub")}


class LieRedis(RedisFault):
    name = "Redis lying"
    what = "hints are dropped, repeated, reordered and invented on their way; ends when several were"

    async def inject(self) -> None:
        self.before = self._told()
        self.world.liar.send_signal(signal.SIGUSR1)

    async def took_effect(self) -> bool:
        return self._told() >= self.before + 8

    async def heal(self) -> None:
        self.world.liar.send_signal(signal.SIGUSR2)

    def _told(self) -> int:
        return int.from_bytes(self.world.lies_file.read_bytes(), "little")


REDIS = (KillRedis, PauseRedis, FlushRedis, LieRedis)
