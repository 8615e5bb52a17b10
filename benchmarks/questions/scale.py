"""What do many nodes cost the supervisor and the database?

The plan on synthetic input, and the queries of the supervisor and of a host on a database that holds as many rows and
locks as such a deployment does; then what a host asks of the database while nothing happens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Final

import psycopg

from benchmarks import handlers
from benchmarks.bench import Bench
from benchmarks.candidates import cluster, headwater
from benchmarks.measure import Case, Sample, percentile
from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions
from headwater.cluster.plan import HostFacts, PartitionFacts, applied, plan
from headwater.cluster.running import NoNodes
from headwater.cluster.wiring import open_host, open_supervisor
from headwater.storage.leases import PartitionKey
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.leases import LeaseSession
from headwater.storage.postgres.placement import PostgresPlacement
from headwater.storage.postgres.store import PostgresEventStore
from headwater.subscriptions.app import App

SIZES: Final = ((10, 200), (100, 1_000), (1_000, 10_000))
TIMES: Final = 5
SECONDS: Final = 5.0

_FILL: Final = """
INSERT INTO "headwater"."hosts" ("host", "node", "facts")
SELECT 'host-' || n, 'node-' || n, '{"resources": {}, "labels": {}}' FROM generate_series(0, %(nodes)s - 1) AS n;
INSERT INTO "headwater"."subscriptions" ("name", "handler", "options", "partitions")
SELECT 's-' || n, 'benchmarks.handlers:Count', '{}', 8 FROM generate_series(0, %(partitions)s / 8 - 1) AS n;
INSERT INTO "headwater"."partitions"
    ("subscription_id", "partition", "owner", "wanted_owner", "standby", "wanted_standby", "epoch")
SELECT "subscription_id", p, owner, owner, standby, standby, 1
FROM "headwater"."subscriptions", generate_series(0, 7) AS p, LATERAL (
    SELECT 'host-' || ("subscription_id" * 8 + p) %% %(nodes)s, 'host-' || ("subscription_id" * 8 + p + 1) %% %(nodes)s
) AS "at" (owner, standby);
ANALYZE;
"""
_LOCK: Final = """
SELECT count(pg_advisory_lock('"headwater"."hosts"'::regclass::oid::integer, "lock_id")) FROM "headwater"."hosts";
SELECT count(pg_advisory_lock('"headwater"."partitions"'::regclass::oid::integer, "lock_id"))
FROM "headwater"."partitions";
"""
_COMMITS: Final = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


async def plan_once(nodes: int, partitions: int) -> Sample:
    """Plan from a cold start, at rest, and after the loss of a host, in seconds of the processor."""
    hosts = [HostFacts(host=f"host-{n}", node=f"node-{n}") for n in range(nodes)]
    wanted = [PartitionFacts(lock_id=n, subscription=f"s-{n // 8}") for n in range(partitions)]
    cold, assignments = _processor(partial(plan, wanted, hosts))
    at = {assignment.lock_id: assignment for assignment in assignments}
    settled = [
        replace(applied(p, at[p.lock_id]), owner=at[p.lock_id].owner, standby=at[p.lock_id].standby) for p in wanted
    ]
    rest, nothing = _processor(partial(plan, settled, hosts))
    loss, _ = _processor(partial(plan, settled, hosts[1:]))
    facts = {"cold start CPU ms": cold, "at rest CPU ms": rest, "host lost CPU ms": loss}
    return Sample(partitions, len(assignments) + len(nothing), cold / 1000, facts=facts)


def _processor(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    result = work()
    return (time.process_time() - begun) * 1000, result


class Filled:
    """A database that looks as if so many hosts ran so many partitions."""

    def __init__(self, url: str, placement: PostgresPlacement, leases: LeaseSession, partitions: int) -> None:
        self._url = url
        self._placement = placement
        self._leases = leases
        self._partitions = partitions

    async def ask(self) -> Sample:
        """Ask what a supervisor asks at each plan, and what a host asks again and again."""
        begun = time.perf_counter()
        found = await self._placement.partitions()
        mine = [row.key for row in found if row.wanted_standby == "host-1"]
        facts = {
            "supervisor ms": await _median(self._supervisor),
            "host, assignments ms": await _median(partial(self._placement.assigned, "host-1")),
            "host, claim ms": await _median(partial(self._claim, mine)),
        }
        return Sample(self._partitions, len(found), time.perf_counter() - begun, facts=facts)

    async def _supervisor(self) -> None:
        await self._placement.hosts()
        await self._placement.partitions()
        await self._placement.settle_moves()
        await self._placement.forget_hosts()

    async def _claim(self, keys: list[PartitionKey]) -> None:
        assert await self._leases.claim(keys) == []


async def _median(question: Callable[[], Awaitable[Any]]) -> float:
    times = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        await question()
        times.append((time.perf_counter() - begun) * 1000)
    return percentile(times, 50)


@asynccontextmanager
async def filled(bench: Bench, nodes: int, partitions: int) -> AsyncIterator[Filled]:
    """Fill a database and hold every lock of it in one session."""
    async with bench.database() as url, await psycopg.AsyncConnection.connect(url, autocommit=True) as holder:
        await headwater.make_schema(url)
        async with psycopg.AsyncClientCursor(holder) as cursor:
            await cursor.execute(_FILL, {"nodes": nodes, "partitions": partitions})
            await cursor.execute(_LOCK)
        options = StoreOptions(url=url)
        # It asks and holds nothing: to lose it to a pause of the machine would only spoil the round.
        leases = LeaseSession(options, host="host-1", lease=timedelta(seconds=30))
        async with await PostgresEventStore.open(options=options) as store:
            await leases.open()
            try:
                yield Filled(url, PostgresPlacement(store.pool, store.sql), leases, partitions)
            finally:
                await leases.close()


async def idle(url: str, seconds: float, subscriptions: int) -> Sample:
    """Run a host and a supervisor that have nothing to do, and count their transactions and what they take."""
    options = ClusterOptions(store=StoreOptions(url=url))
    app = App("idle", database_url=url)
    for number in range(subscriptions):
        app.subscription(f"idle-{number}")(handlers.Count)
    async with (
        await Client.open(options) as client,
        open_host(options, "bench", {}) as host,
        open_supervisor(options, NoNodes()) as supervisor,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as conn,
    ):
        await client.register(app)
        running = [asyncio.create_task(host.run()), asyncio.create_task(supervisor.run())]
        try:
            deadline = time.monotonic() + cluster.PATIENCE
            while sum(slot.running for slot in host.slots) < subscriptions:
                if time.monotonic() > deadline:
                    raise cluster.Late(f"{host} does not run its {subscriptions} subscriptions")
                await asyncio.sleep(0.05)
            commits, used, begun = await _commits(conn), time.process_time(), time.monotonic()
            await asyncio.sleep(seconds)
            passed = time.monotonic() - begun
            facts = {
                "transactions/s": (await _commits(conn) - commits) / passed,
                "CPU %": (time.process_time() - used) / passed * 100,
            }
            owned = sum(slot.running for slot in host.slots)
            return Sample(subscriptions, owned, passed, facts=facts)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


async def _commits(conn: psycopg.AsyncConnection[Any]) -> int:
    # The server's sessions tell their figures once a second at the most.
    await asyncio.sleep(1.1)
    await conn.execute("SELECT pg_stat_clear_snapshot()")
    row = await (await conn.execute(_COMMITS)).fetchone()
    assert row is not None
    return int(row[0])


async def cases(bench: Bench) -> AsyncIterator[Case]:
    """Yield the plan and the queries for each size, then an idle host."""
    sizes = ((4, 16),) if bench.effort.quick else SIZES
    for nodes, partitions in sizes:
        parameters = {"nodes": nodes, "partitions": partitions}
        name = f"{nodes} nodes"
        if bench.effort.wants(f"scale, plan, {name}"):
            yield Case(f"scale, plan, {name}", {headwater.NAME: partial(plan_once, nodes, partitions)}, parameters)
        if bench.effort.wants(f"scale, queries, {name}"):
            async with filled(bench, nodes, partitions) as database:
                yield Case(f"scale, queries, {name}", {headwater.NAME: database.ask}, parameters)
    if bench.effort.wants("scale, idle host"):
        seconds = bench.effort.seconds if bench.effort.quick else SECONDS
        async with bench.database() as few, bench.database() as many:
            for url in (few, many):
                await headwater.make_schema(url)
            candidates = {
                "1 partition": partial(idle, few, seconds, 1),
                "50 partitions": partial(idle, many, seconds, 50),
            }
            yield Case("scale, idle host", candidates)
