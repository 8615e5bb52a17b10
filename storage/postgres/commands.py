"""Operators' commands and parked events in Postgres: asked for by anybody, obeyed under the owner's epoch.

Never obeys anything itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, TypeAlias

import orjson

from headwater.storage import parking
from headwater.storage.checks import keepable
from headwater.storage.errors import InvalidArgument, SubscriptionNotFound
from headwater.storage.leases import Grant, RetryBegun, ToRetry
from headwater.storage.parking import Open, ParkedChange, Plan
from headwater.storage.postgres.checkpoints import fence, stale
from headwater.storage.postgres.connect import Pool
from headwater.storage.postgres.failures import translated
from headwater.storage.postgres.obstacles import check_passed, keep_partitions
from headwater.storage.postgres.statements import Statements
from headwater.storage.registry import (
    ALL_PARKED,
    CommandRecord,
    ParkedEdit,
    ParkedFilter,
    ParkedRecord,
    ParkedStatus,
)

Decide: TypeAlias = Callable[[Sequence[Open]], Plan]
"""What becomes of what is parked."""


class Commands:
    """What operators ask for, as rows that stay as the audit."""

    def __init__(self, pool: Pool, sql: Statements) -> None:
        self._pool = pool
        self._sql = sql

    async def issue(
        self,
        subscription: str,
        verb: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        issued_by: str,
        partition: int | None = None,
        dry_run: bool = False,
    ) -> list[int]:
        """Ask for something of one partition, or of all; returns the commands' ids, one for each partition.

        ``dry_run`` checks the same, and asks for nothing. Raises SubscriptionNotFound, also when it has no such
        partition; SubscriptionConflict while its partitions are about to change, for all but "resume", and for a rewind
        below what its earlier ones had settled, until that is passed.
        """
        given = dict(arguments or {})
        asked = {
            "name": subscription,
            "partition": partition,
            "verb": verb,
            "arguments": orjson.dumps(given).decode(),
            "issued_by": issued_by,
        }
        with translated():
            async with self._pool.connection() as conn, conn.transaction(force_rollback=dry_run):
                await keep_partitions(conn, self._sql, [subscription], refuse=verb != "resume")
                if verb == "rewind":
                    # One number could not say any more which of the events between the marks are replays.
                    to = given.get("to")
                    await check_passed(conn, self._sql, [subscription], below=to if isinstance(to, int) else 0)
                rows = await (await conn.execute(self._sql.issue_command, asked)).fetchall()
                if verb == "resume":
                    await conn.execute(self._sql.end_halts, {"name": subscription, "partition": partition})
        if not rows:
            raise SubscriptionNotFound(subscription)
        return [command_id for command_id, _ in rows]

    async def open(self, lock_ids: Sequence[int]) -> list[CommandRecord]:
        """Return what is still to be done for these partitions, in the order in which it was asked for."""
        rows = await self._rows(self._sql.open_commands, {"lock_ids": list(lock_ids)})
        return [_command(row) for row in rows]

    async def finish(self, grant: Grant, command_id: int, outcome: str) -> None:
        """Say that a command was obeyed; a second time changes nothing. Raises StaleEpoch."""
        values = fence(grant) | {"command_id": command_id, "outcome": outcome}
        if not await self._rows(self._sql.finish_command, values):
            raise stale(grant)

    async def audit(
        self, subscription: str | None = None, *, limit: int = 100, since: datetime | None = None
    ) -> list[CommandRecord]:
        """Return the latest commands, newest first; the payloads of corrections as they are kept, as bytes."""
        rows = await self._rows(self._sql.list_commands, {"name": subscription, "limit": limit, "since": since})
        return [_audited(row) for row in rows]

    async def parked(
        self,
        subscription: str,
        *,
        where: ParkedFilter = ALL_PARKED,
        statuses: Sequence[ParkedStatus] = ("parked", "retrying"),
        after: int = 0,
        limit: int = 100,
    ) -> list[ParkedRecord]:
        """Return events that were set aside, by position."""
        asked = {"name": subscription, "statuses": list(statuses), "after": after, "limit": limit} | _chosen(where)
        return [ParkedRecord(*row) for row in await self._rows(self._sql.list_parked, asked)]

    async def parked_edits(self, parked_id: int, shown: Callable[[bytes], Any] = orjson.loads) -> list[ParkedEdit]:
        """Return the corrections of a parked event, oldest first; ``shown`` returns what a payload says."""
        rows = await self._rows(self._sql.list_parked_edits, {"parked_id": parked_id})
        return [
            ParkedEdit(by, at, reason, None if before is None else shown(before), shown(after))
            for by, at, reason, before, after in rows
        ]

    async def edit_parked(
        self, subscription: str, position: int, after: bytes, *, stored: bytes, edited_by: str, reason: str = ""
    ) -> None:
        """Let a parked event be handled again with another payload; the stored event stays as it is.

        ``stored`` is its payload, for the audit. Both are JSON, and are kept as they are given: encrypted already, if
        the event is. Raises InvalidArgument for an event that is not parked (any more).
        """
        values = {
            "name": subscription,
            "position": position,
            "edited_by": edited_by,
            "reason": reason,
            "after": after.decode(),
        }
        with translated():
            async with self._pool.connection() as conn, conn.transaction():
                row = await (await conn.execute(self._sql.find_parked_for_edit, values)).fetchone()
                if row is None:
                    raise InvalidArgument("position", f"{position} is not parked in {subscription!r}")
                parked_id, edited = row
                before = (stored if edited is None else bytes(edited)).decode()
                noted = values | {"parked_id": parked_id, "before": before}
                [edit_id] = await (await conn.execute(self._sql.edit_parked, noted)).fetchone() or [None]
                audit = {
                    "name": subscription,
                    "verb": "edit parked",
                    "arguments": orjson.dumps({"position": position, "edit_id": edit_id, "reason": reason}).decode(),
                    "issued_by": edited_by,
                    "outcome": "1 event",
                }
                await conn.execute(self._sql.audit_parked, audit)

    async def retry_parked(
        self,
        subscription: str,
        *,
        issued_by: str,
        where: ParkedFilter = ALL_PARKED,
        limit: int | None = None,
        rate: float | None = None,
        reason: str = "",
        dry_run: bool = False,
    ) -> ParkedChange:
        """Ask for parked events to be handled again: at most ``limit``, and at most ``rate`` a second.

        Earlier ones of the same keys come along, and later ones that only waited behind them: all of them count. The
        next one of a key after the limit waits for somebody to decide. ``dry_run`` returns what would be asked for, and
        asks for nothing. Raises SubscriptionNotFound, InvalidArgument.
        """
        every = parking.seconds_between(rate)
        asked = _chosen(where) | {"limit": limit, "rate": rate, "reason": reason or None}
        return await self._change(
            subscription,
            "retry parked",
            asked,
            lambda rows: parking.retry(rows, limit),
            issued_by,
            every=every,
            dry_run=dry_run,
        )

    async def cancel_retry(
        self,
        subscription: str,
        *,
        issued_by: str,
        where: ParkedFilter = ALL_PARKED,
        reason: str = "",
        dry_run: bool = False,
    ) -> ParkedChange:
        """Take back what was asked to be handled again and was not begun, with the later ones of the same keys.

        Nothing more is handed out because of that retry, also not by itself after one that is under way. Raises
        SubscriptionNotFound.
        """
        asked = _chosen(where) | {"reason": reason or None}
        return await self._change(subscription, "cancel retry", asked, parking.cancel, issued_by, dry_run=dry_run)

    async def discard_parked(
        self,
        subscription: str,
        *,
        issued_by: str,
        where: ParkedFilter = ALL_PARKED,
        limit: int | None = None,
        release: bool = False,
        reason: str = "",
        dry_run: bool = False,
    ) -> ParkedChange:
        """Give parked events up for good. What waited behind them is handed out only if it is to be released.

        Raises SubscriptionNotFound.
        """
        asked = _chosen(where) | {"limit": limit, "release": release or None, "reason": reason or None}
        return await self._change(
            subscription,
            "discard parked",
            asked,
            lambda rows: parking.discard(rows, limit, release=release),
            issued_by,
            dry_run=dry_run,
        )

    async def to_retry(self, grant: Grant, *, limit: int = 100) -> list[ToRetry]:
        """Return what the owner should try again, in order."""
        values = fence(grant) | {"limit": limit}
        return [ToRetry(*row) for row in await self._rows(self._sql.parked_to_retry, values)]

    async def begin_retry(self, grant: Grant, position: int) -> RetryBegun | None:
        """Count an attempt, before it is made; None when it must not be, since an operator has decided otherwise.

        Raises StaleEpoch.
        """
        rows = await self._rows(self._sql.begin_retry, fence(grant) | {"position": position})
        if not rows:
            raise stale(grant)
        edited, begun = rows[0]
        return RetryBegun(edited) if begun else None

    async def retried(self, grant: Grant, position: int, key: str | None, error: str | None = None) -> None:
        """Say how a retry went. After an ``error`` later ones of the same key wait again. Raises StaleEpoch."""
        values = fence(grant) | {
            "position": position,
            "key": key,
            "status": "settled" if error is None else "parked",
            "error": None if error is None else keepable(error),
        }
        if not await self._rows(self._sql.retried_parked, values):
            raise stale(grant)

    async def _change(
        self,
        name: str,
        verb: str,
        asked: Mapping[str, Any],
        decide: Decide,
        issued_by: str,
        *,
        every: float | None = None,
        dry_run: bool,
    ) -> ParkedChange:
        audit = {
            "name": name,
            "verb": verb,
            "arguments": orjson.dumps({k: v for k, v in asked.items() if v is not None}).decode(),
            "issued_by": issued_by,
        }
        with translated():
            # A dry run is the same, rolled back: so it tells exactly what would be done.
            async with self._pool.connection() as conn, conn.transaction(force_rollback=dry_run):
                # Before anything of it is locked: those who delete or repartition lock in this order, too.
                await keep_partitions(conn, self._sql, [name], refuse=False)
                begun = await (await conn.execute(self._sql.begin_parked_change, audit)).fetchone()
                if begun is None:
                    raise SubscriptionNotFound(name)
                values = {"command_id": begun[0], "subscription_id": begun[1], "every": every}
                await conn.execute(self._sql.lock_parked, values)
                rows = await (await conn.execute(self._sql.open_parked, dict(asked) | values)).fetchall()
                plan = decide([Open(*row) for row in rows])
                becomes = sorted(plan.becomes.items())
                changed = values | {
                    "positions": [position for position, _ in becomes],
                    "statuses": [status for _, (status, _) in becomes],
                    "reasons": [reason for _, (_, reason) in becomes],
                }
                if becomes:
                    await conn.execute(self._sql.change_parked, changed)
                await conn.execute(self._sql.end_parked_change, values | {"outcome": plan.change.describe(verb)})
        return plan.change

    async def _rows(self, statement: bytes, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        with translated():
            async with self._pool.connection() as conn:
                return await (await conn.execute(statement, parameters)).fetchall()


def _chosen(where: ParkedFilter) -> dict[str, Any]:
    return asdict(where) | {"positions": None if where.positions is None else list(where.positions)}


def _audited(row: tuple[Any, ...]) -> CommandRecord:
    record, edited = _command(row[:10]), row[10:]
    return record if edited[0] is None else replace(record, edit=ParkedEdit(*edited))


def _command(row: tuple[Any, ...]) -> CommandRecord:
    command_id, name, partition, lock_id, verb, arguments, *rest = row
    return CommandRecord(command_id, name, partition, lock_id, verb, orjson.loads(arguments), *rest)
