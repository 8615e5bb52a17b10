"""Hosts, and which partition should be where, in Postgres: what the supervisor and the hosts tell each other.

Decides nothing; only the holder of the plan's generation can write assignments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from psycopg.rows import namedtuple_row

from headwater.storage.leases import PartitionKey
from headwater.storage.postgres.connect import Pool
from headwater.storage.postgres.failures import translated
from headwater.storage.postgres.statements import Statements


class HostRow(NamedTuple):
    """A host that is alive: it holds its own lock."""

    host: str
    node: str
    draining: bool
    facts: dict[str, Any]
    started_at: datetime


class PlacementRow(NamedTuple):
    """Where a partition is, and where it should be."""

    key: PartitionKey
    owner: str | None
    """The host that holds the lease; None when nobody does."""
    standby: str | None
    wanted_owner: str | None
    wanted_standby: str | None
    target: str | None
    """The node that an operator asked for."""
    move: int | None
    """The id of the command by which; None when nobody did."""
    asked: float
    """How long ago, in seconds."""
    lag: int
    granted_at: float
    options: dict[str, Any]


class AssignedRow(NamedTuple):
    """A partition that a host should own or stand by for."""

    key: PartitionKey
    handler: str
    options: dict[str, Any]
    wanted: str
    wanted_owner: str | None
    wanted_standby: str | None
    owner: str | None
    standby: str | None
    commanded: bool
    """Whether operators have asked something of it that is not done."""
    wanted_why: str | None
    """Who wanted it to rest, when, and why."""


class PostgresPlacement:
    """Statements about placement, on a pool of connections."""

    def __init__(self, pool: Pool, sql: Statements) -> None:
        self._pool = pool
        self._sql = sql

    async def hosts(self) -> list[HostRow]:
        """Return the hosts that are alive."""
        return [HostRow(r.host, r.node, r.draining, _json(r.facts), r.started_at) for r in await self._rows("hosts")]

    async def partitions(self) -> list[PlacementRow]:
        """Return the partitions that should run."""
        return [
            PlacementRow(
                key=PartitionKey(r.name, r.partition, r.lock_id),
                owner=r.owner,
                standby=r.standby,
                wanted_owner=r.wanted_owner,
                wanted_standby=r.wanted_standby,
                target=r.target,
                move=r.move,
                asked=r.asked,
                lag=r.lag,
                granted_at=r.granted_at,
                options=_json(r.options),
            )
            for r in await self._rows("partitions")
        ]

    async def assign(self, generation: int, assignments: Sequence[tuple[int, str | None, str | None]]) -> None:
        """Write (lock id, owner, standby) down; writes nothing when the generation is not the plan's any more."""
        lock_ids, owners, standbys = zip(*assignments, strict=True)
        await self._rows(
            "assign",
            generation=generation,
            lock_ids=list(lock_ids),
            owners=list(owners),
            standbys=list(standbys),
        )

    async def settle_moves(self) -> None:
        """Mark the moves that are done."""
        await self._rows("moved")

    async def end_moves(self, generation: int, outcomes: Mapping[int, str]) -> None:
        """Give moves up that cannot be done, by their commands' ids, and those of what has been stopped."""
        await self._rows(
            "end_moves", generation=generation, command_ids=list(outcomes), outcomes=list(outcomes.values())
        )

    async def forget_hosts(self) -> None:
        """Forget the hosts that are long gone."""
        await self._rows("forget")

    async def assigned(self, host: str) -> tuple[bool, str | None, list[AssignedRow]]:
        """Return whether the host should leave, the mark of its troubles, and what it should own or stand by for."""
        rows = await self._rows("assigned", host=host)
        return (
            any(r.draining for r in rows),
            next((r.told for r in rows), None),
            [
                AssignedRow(
                    key=PartitionKey(r.name, r.partition, r.lock_id),
                    handler=r.handler,
                    options=_json(r.options),
                    wanted=r.wanted,
                    wanted_owner=r.wanted_owner,
                    wanted_standby=r.wanted_standby,
                    owner=r.owner,
                    standby=r.standby,
                    commanded=r.commanded,
                    wanted_why=r.wanted_why,
                )
                for r in rows
                if r.lock_id is not None
            ],
        )

    async def ready(self, host: str, keys: Sequence[PartitionKey]) -> None:
        """Say that the host is ready to take these over; has no effect where another standby is wanted now."""
        await self._rows("ready", host=host, lock_ids=[key.lock_id for key in keys])

    async def troubles(self, host: str, mark: str | None, reasons: Mapping[str, str]) -> None:
        """Write down, by lock ids, what a host cannot run and why; the mark says later whether it is the same."""
        told = {"mark": mark, "of": dict(reasons)} if reasons else {}
        await self._rows("troubles", host=host, troubles=orjson.dumps(told).decode())

    async def drain(self, name: str) -> list[str]:
        """Ask the hosts of a node, or one host, to leave; returns which."""
        return [r.host for r in await self._rows("drain", name=name)]

    async def _rows(self, statement: str, **parameters: Any) -> list[Any]:
        with translated():
            async with self._pool.connection() as conn, conn.cursor(row_factory=namedtuple_row) as cursor:
                await cursor.execute(getattr(self._sql, f"placement_{statement}"), parameters)
                return await cursor.fetchall() if cursor.description else []


def _json(text: bytes) -> dict[str, Any]:
    parsed: dict[str, Any] = orjson.loads(text)
    return parsed
