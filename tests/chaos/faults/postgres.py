"""Faults of the database server: restarted, crashed, its sessions ended, full, read-only, with another time of day."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime
from typing import Any

import psycopg

from tests.chaos.faults.base import Fault
from tests.chaos.servers import SERVER_CLOCK
from tests.chaos.world import World


class RestartPostgres(Fault[World]):
    name = "Postgres restarted"
    what = "SIGINT: sessions are ended, then the server; started again; counted from when it answers"
    target = 3.0
    moves = True
    ends_sessions = True
    counts_from_heal = True
    hold = (0.0, 1.0)
    number = signal.SIGINT

    async def inject(self) -> None:
        self.world.servers.signal_postgres(self.number)

    async def took_effect(self) -> bool:
        return not self.world.servers.postgres.running

    async def heal(self) -> None:
        if not self.world.servers.postgres.running:
            await asyncio.to_thread(self.world.servers.start_postgres)


class CrashPostgres(RestartPostgres):
    name = "Postgres crashed"
    what = "SIGQUIT: ends without writing anything down, and recovers; counted from when it answers"
    number = signal.SIGQUIT


class Asking(Fault[World]):
    """Something that a superuser can do to a server."""

    async def ask(self, statement: str, *parameters: Any) -> list[Any]:
        """Run a statement on a connection of its own; returns the rows."""

        def work() -> list[Any]:
            with self.world.servers.connect(self.world.url) as conn:
                cursor = conn.execute(statement.encode(), parameters or None)
                return cursor.fetchall() if cursor.description else []

        return await asyncio.to_thread(work)


class EndBackends(Asking):
    name = "backends terminated"
    what = "the server ends every session of hosts and writers"
    moves = True
    ends_sessions = True

    async def inject(self) -> None:
        rows = await self.ask(
            "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name LIKE 'headwater%' AND datname = current_database()"
        )
        self.ended = [pid for pid, _ in rows]

    async def took_effect(self) -> bool:
        rows = await self.ask("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (%s)", self.ended)
        return bool(self.ended) and rows == [(0,)]


class CrashBackend(Asking):
    name = "backend killed"
    what = "SIGKILL to one session's process: the server takes all of them down and recovers"
    moves = True
    ends_sessions = True

    async def inject(self) -> None:
        [(pid,)] = await self.ask(
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'headwater%leases%' ORDER BY pid LIMIT 1"
        )
        os.kill(pid, signal.SIGKILL)
        self.pid = pid

    async def took_effect(self) -> bool:
        try:
            rows = await self.ask("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", self.pid)
        except psycopg.OperationalError:
            return True
        return rows == [(0,)]


class ReadOnly(Asking):
    name = "read-only answers"
    what = "the server refuses every write, as a standby would; counted from when it takes them again"
    counts_from_heal = True
    hold = (0.5, 6.0)

    async def inject(self) -> None:
        await self.ask("ALTER SYSTEM SET default_transaction_read_only = on")
        await self.ask("SELECT pg_reload_conf()")

    async def took_effect(self) -> bool:
        def refused() -> bool:
            with psycopg.connect(self.world.url, autocommit=True) as conn:
                try:
                    conn.execute('DELETE FROM "chaos"."stale_writes" WHERE false')
                except psycopg.errors.ReadOnlySqlTransaction:
                    return True
                return False

        return await asyncio.to_thread(refused)

    async def heal(self) -> None:
        await self.ask("ALTER SYSTEM RESET default_transaction_read_only")
        await self.ask("SELECT pg_reload_conf()")


class DiskFull(Asking):
    name = "disk full"
    what = "no room is left where the tables are, and the server says so; counted from when there is"
    counts_from_heal = True
    hold = (0.5, 6.0)

    @classmethod
    def needs(cls, world: World) -> str | None:
        return None if world.servers.small_disk else "a disk of its own for the data: root, on Linux"

    async def inject(self) -> None:
        await asyncio.to_thread(self.world.servers.fill_disk)

    async def took_effect(self) -> bool:
        """A table that must grow cannot."""
        try:
            await self.ask('CREATE TABLE "chaos"."probe" AS SELECT repeat(\'x\', 4000) FROM generate_series(1, 200)')
        except psycopg.errors.DiskFull:
            return True
        await self.ask('DROP TABLE "chaos"."probe"')
        return False

    async def heal(self) -> None:
        await asyncio.to_thread(self.world.servers.free_disk)
        if not self.world.servers.postgres.running:
            await asyncio.to_thread(self.world.servers.start_postgres)


class ServerClock(Asking):
    name = "server's clock stepped"
    what = "the server's time of day jumps by up to a day, either way"
    ends_sessions = True  # a step forward ends every session whose idle time-out runs

    @classmethod
    def needs(cls, world: World) -> str | None:
        return None if world.servers.clocks else "Linux and a C compiler"

    async def inject(self) -> None:
        self.step = self.chance.choice((-86_400, -3_600, -5, 5, 3_600, 86_400))
        assert self.world.servers.clocks is not None
        self.world.servers.clocks.step(SERVER_CLOCK, self.step)

    async def took_effect(self) -> bool:
        [(now,)] = await self.ask("SELECT clock_timestamp()")
        return bool(abs((now - datetime.now(UTC)).total_seconds() - self.step) < 2)

    async def heal(self) -> None:
        assert self.world.servers.clocks is not None
        self.world.servers.clocks.step(SERVER_CLOCK, 0)


POSTGRES = (RestartPostgres, CrashPostgres, EndBackends, CrashBackend, ReadOnly, DiskFull, ServerClock)
