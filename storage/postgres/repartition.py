"""The change of the number of partitions in Postgres: one transaction takes the old set out and puts the new one in.

Decides neither where the new partitions begin nor which has which key: it is given functions for that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import orjson

from headwater.storage.leases import Progress
from headwater.storage.postgres.connect import Connection, Pool
from headwater.storage.postgres.failures import translated
from headwater.storage.postgres.obstacles import obstacle
from headwater.storage.postgres.statements import Statements
from headwater.storage.registry import PartitionSet

Successor: TypeAlias = Callable[[PartitionSet, int, str | None], PartitionSet]
"""Given the old set, the new number of partitions, and what they are split by: the new set."""
Share: TypeAlias = Callable[[str | None, int, int], int]
"""Given a key (or None), a position, and the number of partitions: which has the event."""

TOTALS: Final = ("delivered", "redelivered", "parked", "halted", "halt_reason", "halted_at")


class Repartition:
    """Statements about the number of partitions, on a pool of connections.

    1. Before the transaction commits the old set stands, after it the new one: there is nothing between to repair.
    2. While it runs nobody holds, or gets, a lease of the old set; afterwards an old owner's writes name no row.
    """

    def __init__(self, pool: Pool, sql: Statements) -> None:
        self._pool = pool
        self._sql = sql

    async def wanted(self) -> list[str]:
        """Return the subscriptions whose number of partitions should change."""
        with translated():
            async with self._pool.connection() as conn:
                rows = await (await conn.execute(self._sql.repartition_wanted)).fetchall()
        return [name for (name,) in rows]

    async def switch(self, name: str, successor: Successor, share: Share) -> bool:
        """Replace the old set when all of its leases are free; returns whether that was done now. Safe to repeat.

        Raises SubscriptionConflict when it has become impossible: then it was taken back, and the old set goes on.
        """
        conflict = None
        with translated():
            async with self._pool.connection() as conn, conn.transaction():
                found = await (await conn.execute(self._sql.repartition_begin, {"name": name})).fetchone()
                if found is None:
                    return False
                subscription_id, to, split_by, partition_by, seam = found
                subscription = {"subscription_id": subscription_id}
                progress = await self._stopped(conn, subscription)
                if progress is None:
                    return False
                outcome: dict[str, str | None] = {"arguments": orjson.dumps({"from": len(progress), "to": to}).decode()}
                conflict = await obstacle(conn, self._sql, name)
                if conflict is None:
                    old = PartitionSet(
                        split_by,
                        [each for each, _ in progress],
                        [seamed for _, seamed in progress],
                        None if seam is None else orjson.loads(seam),
                    )
                    new = successor(old, to, partition_by)
                    await self._replace(conn, subscription, new)
                    await self._move_parked(conn, subscription, lambda key, position: share(key, position, to))
                    outcome["seam"] = None if new.seam is None else orjson.dumps(new.seam).decode()
                    outcome["outcome"] = f"{len(progress)} became {to}"
                    await conn.execute(self._sql.repartition_end, subscription | outcome)
                else:
                    outcome["outcome"] = f"taken back: {conflict.problem}"
                    await conn.execute(self._sql.repartition_take_back, subscription | outcome)
        if conflict is not None:
            raise conflict
        return True

    async def check(self, name: str) -> None:
        """Raise SubscriptionConflict when the number of partitions could not be changed now."""
        with translated():
            async with self._pool.connection() as conn:
                if (conflict := await obstacle(conn, self._sql, name)) is not None:
                    raise conflict

    async def ask(self, name: str, to: int, *, issued_by: str) -> None:
        """Keep in the audit who asked."""
        values = {"name": name, "arguments": orjson.dumps({"to": to}).decode(), "issued_by": issued_by}
        with translated():
            async with self._pool.connection() as conn:
                await conn.execute(self._sql.repartition_audit, values)

    async def _stopped(self, conn: Connection, subscription: dict[str, Any]) -> list[tuple[Progress, bool]] | None:
        """Return how far each old partition came, and whether it is seamed; None while not all have been let go."""
        locks = await (await conn.execute(self._sql.repartition_locks, subscription)).fetchall()
        if not all(free for _, free in locks):
            return None
        await conn.execute(self._sql.end_older_transactions, {"lock_ids": [lock_id for lock_id, _ in locks]})
        rows = await (await conn.execute(self._sql.repartition_old, subscription)).fetchall()
        if len(rows) < len(locks):
            return None
        return [
            (Progress(checkpoint, in_flight_to, attempt, stream_id=stream_id), seamed)
            for checkpoint, in_flight_to, attempt, stream_id, seamed in rows
        ]

    async def _replace(self, conn: Connection, subscription: dict[str, Any], new: PartitionSet) -> None:
        totals = await (await conn.execute(self._sql.repartition_replace, subscription)).fetchone()
        assert totals is not None
        columns = {
            "checkpoints": [each.checkpoint for each in new.progress],
            "in_flight_to": [each.in_flight_to for each in new.progress],
            "attempts": [each.attempt for each in new.progress],
            "stream_ids": [each.stream_id for each in new.progress],
            "seamed": list(new.seamed),
        }
        await conn.execute(self._sql.repartition_new, subscription | columns | dict(zip(TOTALS, totals, strict=True)))

    async def _move_parked(
        self, conn: Connection, subscription: dict[str, Any], share: Callable[[str | None, int], int]
    ) -> None:
        """Let parked events wait where the later ones of their keys will be."""
        parked = await (await conn.execute(self._sql.repartition_parked, subscription)).fetchall()
        if parked:
            moved = {
                "positions": [position for position, _ in parked],
                "partitions": [share(key, position) for position, key in parked],
            }
            await conn.execute(self._sql.repartition_move_parked, subscription | moved)
