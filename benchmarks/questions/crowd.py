"""Two hundred subscriptions on three nodes: how soon are they owned, what do they cost, what does moving fifty stop?

All of it is told for each round, which begins with new subscriptions and ends with stopping them. A round fails when
owners for each node differ by more than one, or when an event is not handled by everybody.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Final

import psycopg

from benchmarks.bench import Bench
from benchmarks.candidates import cluster, headwater
from benchmarks.handlers import Count, read_note
from benchmarks.measure import Case, Sample, Target
from headwater.cluster.status import PartitionStatus
from headwater.subscriptions.options import CURRENT

NODES: Final = 3
SUBSCRIPTIONS: Final = 200
MOVED: Final = 50
RATE: Final = 50
AT_REST: Final = 5.0
SECONDS: Final = 5.0

_COMMITS: Final = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
_SESSIONS: Final = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' "
    "AND pid <> pg_backend_pid()"
)


class Crowd:
    """A cluster whose nodes own many subscriptions."""

    def __init__(self, running: cluster.Cluster, store: headwater.Store, number: int, moved: int) -> None:
        self._running = running
        self._store = store
        self._number = number
        self._moved = moved

    async def round(self) -> Sample:
        """Register, rest, move some while events come; returns what was seen."""
        names = [self._running.name("crowd") for _ in range(self._number)]
        begun = time.monotonic()
        await self._running.register(names, Count, batch_size=100, start=CURRENT)
        partitions = await self._until_placed(names)
        owned = time.monotonic() - begun
        owners = Counter(p.node for p in partitions)
        if max(owners.values()) - min(owners.values()) > 1 or len(owners) != NODES:
            raise cluster.Late(f"not balanced: {owners}")
        await self._running.until_live(names)
        transactions, sessions = await self._at_rest()
        others, events, silence = await self._move(partitions)
        note = await self._running.until_counted(names, events)
        await self._running.stop(names)
        facts = {
            "owned s": owned,
            "transactions/s": transactions,
            "connections": sessions,
            f"longest silence of {others} others ms": silence * 1000,
        }
        return Sample(events * self._number, note.events, time.monotonic() - begun, facts=facts)

    async def _until_placed(self, names: Sequence[str]) -> list[PartitionStatus]:
        mine, deadline = set(names), time.monotonic() + cluster.PATIENCE
        while True:
            found = [p for p in await self._running.client.partitions() if p.subscription in mine]
            if len(found) == len(names) and all(p.node is not None and p.standby is not None for p in found):
                return found
            if time.monotonic() > deadline:
                raise cluster.Late(f"{sum(p.node is None for p in found)} of {len(names)} are not owned")
            await asyncio.sleep(0.05)

    async def _at_rest(self) -> tuple[float, int]:
        async with await psycopg.AsyncConnection.connect(self._running.url, autocommit=True) as conn:
            before, begun = await _value(conn, _COMMITS), time.monotonic()
            await asyncio.sleep(AT_REST)
            return (await _value(conn, _COMMITS) - before) / (time.monotonic() - begun), await _value(conn, _SESSIONS)

    async def _move(self, partitions: Sequence[PartitionStatus]) -> tuple[int, int, float]:
        """Move some at once while events come; returns of the others how many, and the longest that one was silent."""
        nodes = sorted({p.node for p in partitions if p.node is not None})
        moving = partitions[: self._moved]
        others = [p.subscription for p in partitions[self._moved :]]
        handled, since, silence = dict.fromkeys(others, 0), dict.fromkeys(others, time.monotonic()), 0.0
        events, begun = 0, time.monotonic()
        moves: asyncio.Future[list[None]] | None = None
        while (now := time.monotonic()) - begun < SECONDS or moves is None or not moves.done():
            if moves is None and now - begun > SECONDS / 5:
                moves = asyncio.gather(*[self._move_one(p, nodes) for p in moving])
            await self._store.append_new(1)
            events += 1
            await asyncio.sleep(max(0.0, begun + events / RATE - time.monotonic()))
            for name in others:
                note = read_note(self._running.folder, name)
                if note is not None and note.events > handled[name]:
                    silence = max(silence, note.last - since[name])
                    handled[name], since[name] = note.events, note.last
        await moves
        return len(others), events, silence

    async def _move_one(self, partition: PartitionStatus, nodes: Sequence[str]) -> None:
        """Hand over to the node that stands by. The balance may move it on at once: what counts is a new owner."""
        to = partition.standby if partition.standby in nodes else next(n for n in nodes if n != partition.node)
        assert to is not None
        await self._running.client.move(partition.subscription, to)
        deadline = time.monotonic() + cluster.PATIENCE
        while (await self._running.client.partitions(partition.subscription))[0].epoch <= partition.epoch:
            if time.monotonic() > deadline:
                raise cluster.Late(f"{partition.subscription} does not move to {to}")
            await asyncio.sleep(0.05)


async def _value(conn: psycopg.AsyncConnection[tuple[int]], statement: str) -> int:
    # The server's sessions tell their figures once a second at the most.
    await asyncio.sleep(1.1)
    await conn.execute("SELECT pg_stat_clear_snapshot()")
    row = await (await conn.execute(statement.encode())).fetchone()
    assert row is not None
    return row[0]


async def cases(bench: Bench) -> AsyncIterator[Case]:
    """Yield the one case."""
    number, moved = (6, 2) if bench.effort.quick else (SUBSCRIPTIONS, MOVED)
    async with bench.database() as url, bench.redis() as redis_url:
        await headwater.make_schema(url)
        async with (
            headwater.store(url, redis_url) as store,
            cluster.running(url, nodes=NODES, redis_url=redis_url) as running,
        ):
            crowd = Crowd(running, store, number, moved)
            yield Case(
                f"{number} subscriptions on {NODES} nodes",
                {headwater.NAME: crowd.round},
                {"subscriptions": number, "moved": moved},
                [
                    Target(headwater.NAME, figure="owned s", at_most=60),
                    Target(headwater.NAME, figure=f"longest silence of {number - moved} others ms"),
                ],
            )
