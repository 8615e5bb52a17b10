"""Replays of a range in Postgres: asked for by anybody, made by the owners, their progress fenced by the epoch.

Never decides what is delivered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from headwater.storage.checks import keepable
from headwater.storage.errors import InvalidArgument
from headwater.storage.leases import Grant, Halt, ParkedEvent, Progress
from headwater.storage.postgres.checkpoints import stale
from headwater.storage.postgres.connect import Pool
from headwater.storage.postgres.failures import translated
from headwater.storage.postgres.obstacles import keep_partitions
from headwater.storage.postgres.statements import Statements


@dataclass(frozen=True, slots=True)
class ReplayRange:
    """What an owner has to replay, and how far that has come."""

    after: int
    until: int
    side_effects: bool
    progress: Progress
    cancelled_by: str | None


@dataclass(frozen=True, slots=True)
class ReplayStatus:
    """A replay of a range, as operators see it."""

    command_id: int
    subscription: str
    partition: int
    after: int
    until: int
    checkpoint: int
    """Everything of the range up to this number is settled again."""
    side_effects: bool
    delivered: int
    failed: int
    """How many events the handler did not get through; they were passed over."""
    last_error: str | None
    issued_by: str
    issued_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    outcome: str | None
    seconds_to_go: float | None
    """At the rate so far; None before there is one, and when it has ended."""


class Replays:
    """What is to be replayed, as rows."""

    def __init__(self, pool: Pool, sql: Statements) -> None:
        self._pool = pool
        self._sql = sql

    async def issue(
        self,
        subscription: str,
        after: int,
        until: int | None,
        *,
        side_effects: bool,
        issued_by: str,
        partition: int | None = None,
        because: Mapping[str, str] | None = None,
        dry_run: bool = False,
    ) -> list[int]:
        """Ask for a replay of what lies after one number and up to another; returns the commands' ids.

        Nothing above a partition's checkpoint is replayed; ``until`` defaults to it. ``dry_run`` does the same and
        takes it back. Raises InvalidArgument when nothing of the range was settled before; SubscriptionConflict while
        the partitions are about to change.
        """
        asked = {
            "name": subscription,
            "partition": partition,
            "after": after,
            "until": until,
            "side_effects": side_effects,
            "arguments": orjson.dumps(
                {"after": after, "until": until, "side_effects": side_effects, **(because or {})}
            ).decode(),
            "issued_by": issued_by,
        }
        with translated():
            async with self._pool.connection() as conn, conn.transaction(force_rollback=dry_run):
                await keep_partitions(conn, self._sql, [subscription])
                rows = await (await conn.execute(self._sql.issue_replay, asked)).fetchall()
        if not rows:
            raise InvalidArgument("from", f"nothing after {after} was handled by {subscription!r} yet")
        return [command_id for (command_id,) in rows]

    async def find(self, command_id: int) -> ReplayRange | None:
        """Return what a command asks to replay."""
        rows = await self._rows(self._sql.find_replay, {"command_id": command_id})
        if not rows:
            return None
        after, until, side_effects, checkpoint, in_flight_to, attempt, cancelled_by = rows[0]
        return ReplayRange(after, until, side_effects, Progress(checkpoint, in_flight_to, attempt), cancelled_by)

    async def cancel(self, subscription: str, *, issued_by: str, dry_run: bool = False) -> list[int]:
        """Ask for the replays of a subscription to end where they are; returns their commands' ids."""
        asked = {"name": subscription, "issued_by": issued_by}
        with translated():
            async with self._pool.connection() as conn, conn.transaction(force_rollback=dry_run):
                rows = await (await conn.execute(self._sql.cancel_replays, asked)).fetchall()
        return [command_id for (command_id,) in rows]

    async def latest(self, subscription: str | None = None, *, limit: int = 100) -> list[ReplayStatus]:
        """Return the latest replays, newest first."""
        rows = await self._rows(self._sql.list_replays, {"name": subscription, "limit": limit})
        return [ReplayStatus(*row) for row in rows]

    async def _rows(self, statement: bytes, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        with translated():
            async with self._pool.connection() as conn:
                return await (await conn.execute(statement, parameters)).fetchall()


class ReplayCheckpoints:
    """The ``Checkpoints`` port for one replay: its own row, under the epoch of its partition.

    Parks nothing: what the handler does not get through is counted, with the last error.
    """

    def __init__(self, pool: Pool, sql: Statements, command_id: int) -> None:
        self._pool = pool
        self._sql = sql
        self._command_id = command_id
        self._progress = Progress(0)
        self._failed = 0
        self._last_error: str | None = None

    def note_failure(self, error: str) -> None:
        """Count an event that was passed over; written down with the next save."""
        self._failed += 1
        self._last_error = keepable(error)

    async def save(self, grant: Grant, progress: Progress, *, conn: Any = None, durable: bool = False) -> None:  # noqa: ARG002  # the port's shape: no transaction joins a replay
        """Save how far it came. Raises StaleEpoch."""
        await self._save(grant, progress, back=False)

    async def take_back(self, grant: Grant, progress: Progress) -> None:
        """Save that it came less far; see the port."""
        await self._save(grant, progress, back=True)

    async def _save(self, grant: Grant, progress: Progress, *, back: bool) -> None:
        failed, error = self._failed, self._last_error
        values = {
            "command_id": self._command_id,
            "epoch": grant.epoch,
            "checkpoint": progress.checkpoint,
            "in_flight_to": progress.in_flight_to,
            "attempt": progress.attempt,
            "delivered": progress.delivered + progress.redelivered,
            "failed": failed,
            "back": back,
            "last_error": error,
        }
        with translated():
            async with self._pool.connection() as conn:
                if await (await conn.execute(self._sql.save_replay, values)).fetchone() is None:
                    raise stale(grant)
        self._progress = progress
        self._failed -= failed

    async def load(self, grant: Grant) -> Progress:  # noqa: ARG002  # asked for only by exactly-once deliveries
        """Return what was saved last."""
        return self._progress

    async def rewind(
        self,
        grant: Grant,
        progress: Progress,
        *,
        settled: int = 0,  # noqa: ARG002  # a replay has no boundary of its own
        side_effects: bool = True,  # noqa: ARG002
        commands: Sequence[int] = (),  # noqa: ARG002  # operators rewind the live delivery only
    ) -> None:
        """Begin again: the stream was made anew."""
        await self._save(grant, progress, back=True)

    async def report(self, grant: Grant, phase: str, reason: str | None) -> None:
        """Say nothing: the partition's phase is that of its live delivery."""

    async def halt(self, grant: Grant, number: int, halt: Halt | None) -> None:
        """Say nothing: a replay that is stopped has ended, and its outcome says why."""

    async def halted(self, grant: Grant) -> Halt | None:  # noqa: ARG002
        """Return nothing: what stops the live delivery does not stop a replay."""
        return None

    async def report_consumers(self, grant: Grant, consumers: int) -> None:
        """Say nothing: a replay's consumers are its owner's affair."""

    async def park(self, grant: Grant, parked: Sequence[ParkedEvent]) -> None:
        """Refuse: that would hold up the live delivery, so a replay skips instead."""
        raise AssertionError(f"a replay was to park {len(parked)} events of {grant.key}")

    async def parked_keys(self, grant: Grant) -> set[str]:  # noqa: ARG002
        """Return none: nothing holds up a replay."""
        return set()
