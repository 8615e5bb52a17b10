"""Operators' commands and parked events in Postgres: asked for by anybody, obeyed under the owner's epoch.

Never obeys anything itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from headwater.storage.errors import SubscriptionNotFound
from headwater.storage.leases import Grant
from headwater.storage.postgres.checkpoints import partition_and_epoch, stale
from headwater.storage.postgres.connect import Pool
from headwater.storage.postgres.failures import translated
from headwater.storage.postgres.statements import Statements
from headwater.storage.registry import CommandRecord, ParkedRecord, ParkedStatus


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
    ) -> list[int]:
        """Ask for something of one partition, or of all; returns the commands' ids, one for each partition.

        Raises SubscriptionNotFound, also when it has no such partition.
        """
        asked = {
            "name": subscription,
            "partition": partition,
            "verb": verb,
            "arguments": orjson.dumps(dict(arguments or {})).decode(),
            "issued_by": issued_by,
        }
        rows = await self._rows(self._sql.issue_command, asked)
        if not rows:
            raise SubscriptionNotFound(subscription)
        return [command_id for command_id, _ in rows]

    async def open(self, lock_ids: Sequence[int]) -> list[CommandRecord]:
        """Return what is still to be done for these partitions, in the order in which it was asked for."""
        rows = await self._rows(self._sql.open_commands, {"lock_ids": list(lock_ids)})
        return [_command(row) for row in rows]

    async def finish(self, grant: Grant, command_id: int, outcome: str) -> None:
        """Say that a command was obeyed; a second time changes nothing. Raises StaleEpoch."""
        values = partition_and_epoch(grant) | {"command_id": command_id, "outcome": outcome}
        if not await self._rows(self._sql.finish_command, values):
            raise stale(grant)

    async def audit(self, subscription: str | None = None, *, limit: int = 100) -> list[CommandRecord]:
        """Return the latest commands, newest first."""
        rows = await self._rows(self._sql.list_commands, {"name": subscription, "limit": limit})
        return [_command(row) for row in rows]

    async def parked(
        self,
        subscription: str,
        *,
        statuses: Sequence[ParkedStatus] = ("parked", "retrying"),
        key: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[ParkedRecord]:
        """Return events that were set aside, by position."""
        asked = {"name": subscription, "statuses": list(statuses), "key": key, "after": after, "limit": limit}
        return [ParkedRecord(*row) for row in await self._rows(self._sql.list_parked, asked)]

    async def retry_parked(
        self,
        subscription: str,
        *,
        issued_by: str,
        positions: Sequence[int] | None = None,
        key: str | None = None,
        limit: int = 1000,
    ) -> list[int]:
        """Ask for parked events to be tried again: some, those of a key, or all; returns their positions.

        Earlier ones of the same keys come along, so that the order within a key is kept.
        """
        return await self._change(
            subscription, "retry parked", ("parked",), "retrying", positions, key, limit, issued_by
        )

    async def cancel_retry(self, subscription: str, *, issued_by: str) -> list[int]:
        """Take back what was asked to be tried again and was not yet; returns the positions."""
        return await self._change(subscription, "cancel retry", ("retrying",), "parked", None, None, 2**31, issued_by)

    async def discard_parked(
        self, subscription: str, *, issued_by: str, positions: Sequence[int] | None = None, key: str | None = None
    ) -> list[int]:
        """Give parked events up for good: some, those of a key, or all; returns their positions."""
        return await self._change(
            subscription, "discard parked", ("parked", "retrying"), "discarded", positions, key, 2**31, issued_by
        )

    async def to_retry(self, grant: Grant, *, limit: int = 100) -> list[tuple[int, str | None, int]]:
        """Return position, key and attempts so far of what the owner should try again, in order."""
        values = partition_and_epoch(grant) | {"limit": limit}
        return [(row[0], row[1], row[2]) for row in await self._rows(self._sql.parked_to_retry, values)]

    async def retried(self, grant: Grant, position: int, key: str | None, error: str | None = None) -> None:
        """Say how a retry went. After an ``error`` later ones of the same key wait again. Raises StaleEpoch."""
        values = partition_and_epoch(grant) | {
            "position": position,
            "key": key,
            "status": "settled" if error is None else "parked",
            "error": None if error is None else error.replace("\0", ""),
        }
        if not await self._rows(self._sql.retried_parked, values):
            raise stale(grant)

    async def _change(
        self,
        name: str,
        verb: str,
        before: Sequence[ParkedStatus],
        after: ParkedStatus,
        positions: Sequence[int] | None,
        key: str | None,
        limit: int,
        issued_by: str,
    ) -> list[int]:
        chosen = {"positions": None if positions is None else list(positions), "key": key, "limit": limit}
        change = chosen | {"name": name, "from": list(before), "to": after, "with_earlier": after == "retrying"}
        with translated():
            async with self._pool.connection() as conn, conn.transaction():
                rows = await (await conn.execute(self._sql.change_parked, change)).fetchall()
                audit = {
                    "name": name,
                    "verb": verb,
                    "arguments": orjson.dumps(chosen).decode(),
                    "issued_by": issued_by,
                    "outcome": f"{len(rows)} events",
                }
                if (await conn.execute(self._sql.audit_parked, audit)).rowcount == 0:
                    raise SubscriptionNotFound(name)
        return sorted(position for (position,) in rows)

    async def _rows(self, statement: bytes, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        with translated():
            async with self._pool.connection() as conn:
                return await (await conn.execute(statement, parameters)).fetchall()


def _command(row: tuple[Any, ...]) -> CommandRecord:
    command_id, name, partition, lock_id, verb, arguments, *rest = row
    return CommandRecord(command_id, name, partition, lock_id, verb, orjson.loads(arguments), *rest)
