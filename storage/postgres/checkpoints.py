"""Progress, status and parked events of partitions in Postgres: every write is fenced by the grant.

Never decides when to save; never takes a lock that outlives its statement, or the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, TypeAlias

import psycopg

from headwater.storage.checks import keepable
from headwater.storage.errors import StaleEpoch, UnexpectedAck
from headwater.storage.leases import Boundary, Grant, Halt, ParkedEvent, Progress
from headwater.storage.postgres.connect import Connection, Pool
from headwater.storage.postgres.failures import translated
from headwater.storage.postgres.statements import Statements

Found: TypeAlias = tuple[int, int | None]
"""What a handler's transaction found saved at its beginning: the checkpoint, and the incarnation that it counts in."""


class PostgresCheckpoints:
    """The ``Checkpoints`` port on a pool of connections.

    1. A write under an epoch that is not the partition's changes no row and raises StaleEpoch.
    2. So does one that was sent before a rewind, or a take-back, and comes after it, of what that changes.
    3. Of two saves, parks, retries or reports that with the lower number changes no row after the other.
    4. Within one incarnation of the source, only ``rewind`` and ``take_back`` lower a checkpoint.
    """

    def __init__(self, pool: Pool, sql: Statements, *, lease: timedelta = timedelta(seconds=3)) -> None:
        self._pool = pool
        self._sql = sql
        self._idle_ms = round(lease.total_seconds() * 1000)

    async def save(
        self,
        grant: Grant,
        progress: Progress,
        *,
        conn: Connection | None = None,
        durable: bool = False,
        found: Found | None = None,
    ) -> None:
        """Save how far the partition came; see the port. Totals count again what is saved again.

        ``found`` is what a transaction found saved at its beginning: raises UnexpectedAck when it is not that any more.
        """
        if conn is not None:
            values = self._in_transaction(grant, progress, found)
            cursor = await conn.execute(self._sql.save_progress_in_transaction, values)
            if await cursor.fetchone() is None:
                cursor = await conn.execute(self._sql.load_progress, fence(grant))
                raise _refused(grant, progress, await cursor.fetchone())
            return
        durability = {"synchronous_commit": "on" if durable else "off"}
        if not await self._changes(self._sql.save_progress, grant, asdict(progress) | durability):
            # Raises when the epoch is stale; else the saved checkpoint is higher, or a later save was made.
            await self._load(grant, self._sql.load_progress)

    def save_blocking(
        self, grant: Grant, progress: Progress, conn: psycopg.Connection[Any], found: Found | None = None
    ) -> None:
        """Save in the transaction of a synchronous connection: for handlers that run in a thread."""
        cursor = conn.execute(self._sql.save_progress_in_transaction, self._in_transaction(grant, progress, found))
        if cursor.fetchone() is None:
            raise _refused(grant, progress, conn.execute(self._sql.load_progress, fence(grant)).fetchone())

    async def load(self, grant: Grant) -> Progress:
        """Return the saved progress; nothing that a handler's transaction does changes it any more. Raises StaleEpoch.

        Whoever asks has given up what its handlers had begun: transactions of theirs that are still open are ended, and
        one that is just being committed is waited for.
        """
        await self._load(grant, self._sql.load_progress)  # who is no owner any more must not end the next one's
        with translated():
            async with self._pool.connection() as conn:
                await conn.execute(self._sql.end_older_transactions, {"lock_ids": [grant.key.lock_id]})
        return await self._load(grant, self._sql.load_certain_progress)

    async def _load(self, grant: Grant, statement: bytes) -> Progress:
        with translated():
            async with self._pool.connection() as conn:
                row = await (await conn.execute(statement, fence(grant))).fetchone()
        if row is None:
            raise stale(grant)
        checkpoint, in_flight_to, attempt, stream_id = row
        return Progress(checkpoint, in_flight_to, attempt, stream_id=stream_id)

    async def rewind(
        self,
        grant: Grant,
        progress: Progress,
        *,
        settled: int = 0,
        side_effects: bool = True,
        commands: Sequence[int] = (),
    ) -> None:
        """Set the progress, also to a lower checkpoint, and say that these commands are obeyed; see the port."""
        values = asdict(progress) | {
            "settled": settled,
            "side_effects": side_effects,
            "commands": list(commands),
            "outcome": f"rewound to {progress.checkpoint}",
        }
        if not await self._changes(self._sql.rewind_progress, grant, values):
            raise stale(grant)

    async def take_back(self, grant: Grant, progress: Progress) -> None:
        """Lower the checkpoint to what was handed out; see the port."""
        if not await self._changes(self._sql.take_back_progress, grant, asdict(progress)):
            raise stale(grant)

    async def boundary(self, grant: Grant) -> Boundary:
        """Return up to where everything was settled before. Raises StaleEpoch."""
        with translated():
            async with self._pool.connection() as conn:
                row = await (await conn.execute(self._sql.load_boundary, fence(grant))).fetchone()
        if row is None:
            raise stale(grant)
        return Boundary(*row)

    async def report(self, grant: Grant, phase: str, reason: str | None) -> None:
        """Say what the partition is doing, for operators. Raises StaleEpoch."""
        if not await self._changes(
            self._sql.report_phase, grant, {"phase": phase, "reason": None if reason is None else keepable(reason)}
        ):
            raise stale(grant)

    async def halt(self, grant: Grant, number: int, halt: Halt | None) -> None:
        """Say that the partition waits for an operator, with an audit row, or that it goes on; see the port."""
        values = {
            "number": number,
            "phase": None if halt is None else halt.phase,
            "reason": None if halt is None or halt.reason is None else keepable(halt.reason),
            "verb": "stop" if halt is not None and halt.phase == "failed" else "pause",
            "issued_by": "failure policy" if halt is not None and halt.phase == "failed" else "breaker",
        }
        if not await self._changes(self._sql.halt_partition, grant, values):
            raise stale(grant)

    async def halted(self, grant: Grant) -> Halt | None:
        """Return what the partition waits for; see the port. Raises StaleEpoch."""
        with translated():
            async with self._pool.connection() as conn:
                row = await (await conn.execute(self._sql.load_halt, fence(grant))).fetchone()
        if row is None:
            raise stale(grant)
        phase, reason, age = row
        return None if age is None else Halt(phase, reason, age)

    async def report_consumers(self, grant: Grant, consumers: int) -> None:
        """Say how many handler actors work for the partition, for operators. Raises StaleEpoch."""
        if not await self._changes(self._sql.report_consumers, grant, {"consumers": consumers}):
            raise stale(grant)

    async def park(self, grant: Grant, parked: Sequence[ParkedEvent]) -> None:
        """Set events aside. Raises StaleEpoch; an event that is parked already stays as it is."""
        columns = {
            "positions": [each.event.position for each in parked],
            "numbers": [each.event.number for each in parked],
            "keys": [each.key for each in parked],
            "reasons": [each.reason for each in parked],
            "errors": [None if each.error is None else keepable(each.error) for each in parked],
            "attempts": [each.attempts for each in parked],
        }
        if not await self._changes(self._sql.park_events, grant, columns):
            raise stale(grant)

    async def parked_keys(self, grant: Grant) -> set[str]:
        """Return the keys that have parked events, of all partitions of the subscription. Raises StaleEpoch."""
        with translated():
            async with self._pool.connection() as conn:
                row = await (await conn.execute(self._sql.parked_keys, fence(grant))).fetchone()
        assert row is not None
        is_mine, keys = row
        if not is_mine:
            raise stale(grant)
        return set(keys)

    async def _changes(self, statement: bytes, grant: Grant, parameters: dict[str, Any]) -> bool:
        with translated():
            async with self._pool.connection() as conn:
                cursor = await conn.execute(statement, parameters | fence(grant))
                return await cursor.fetchone() is not None

    def _in_transaction(self, grant: Grant, progress: Progress, found: Found | None) -> dict[str, Any]:
        checkpoint, stream_id = (None, None) if found is None else found
        before = {"found": checkpoint, "found_stream_id": stream_id}
        return asdict(progress) | fence(grant) | before | {"idle_ms": self._idle_ms}


def fence(grant: Grant) -> dict[str, Any]:
    """Return the parameters that fence a statement."""
    return {"lock_id": grant.key.lock_id, "epoch": grant.epoch, "rewinds": grant.rewinds, "write": grant.write}


def stale(grant: Grant) -> StaleEpoch:
    """Return the error for a grant that is over."""
    return StaleEpoch(grant.key.subscription, grant.key.partition, grant.epoch)


def _refused(grant: Grant, progress: Progress, saved: object) -> StaleEpoch | UnexpectedAck:
    if saved is None:
        return stale(grant)
    return UnexpectedAck(grant.key.subscription, number=progress.checkpoint)
