"""New versions beside old ones in Postgres: each step of a replacement is one transaction over the rows of both.

Decides nothing: whoever plans looks at the rows under their locks and says which step is due.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

import orjson
import psycopg

from headwater.storage.errors import InvalidArgument, SubscriptionConflict, SubscriptionNotFound
from headwater.storage.postgres.connect import Connection, Pool
from headwater.storage.postgres.failures import translated
from headwater.storage.postgres.obstacles import check_passed, keep_partitions
from headwater.storage.postgres.registry import Registration, put
from headwater.storage.postgres.statements import Statements

ReplacementPhase: TypeAlias = Literal["catching up", "taking over", "done", "cancelled"]
Step: TypeAlias = Literal["stop old", "resume old", "take over"]
OPEN: Final = ("catching up", "taking over")


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A partition of one of two versions, under its lock."""

    subscription_id: int
    name: str
    source: str
    wanted: str
    options: bytes
    partition: int
    lock_id: int
    checkpoint: int
    in_flight_to: int
    stream_id: int | None
    closed: bool
    phase: str
    """What its owner has said last."""
    owned: bool
    """Whether anybody holds its lease."""
    head: int
    """The highest number of the source."""

    @property
    def clean(self) -> bool:
        """Whether nothing after the checkpoint can have reached the handler."""
        return self.in_flight_to <= self.checkpoint

    @property
    def runs(self) -> bool:
        """Whether an owner has its handler at work, or could at once."""
        return self.owned and self.phase == "running"


@dataclass(frozen=True, slots=True)
class Versions:
    """A replacement and the partitions of both versions, at one moment."""

    phase: ReplacementPhase
    seconds: float
    """How long it has been in this phase."""
    pairs: Sequence[tuple[VersionRow, VersionRow]]
    """Each partition of the new version, behind the one of the old version that it follows."""
    must_reach: int = 0
    """What the old version has to settle before it is stopped again: a dead owner had begun it."""

    @property
    def old(self) -> list[VersionRow]:
        """The old version's partitions."""
        return list({old.lock_id: old for old, _ in self.pairs}.values())


Decide: TypeAlias = Callable[[Versions], Step | None]


@dataclass(frozen=True, slots=True)
class ReplacementRow:
    """A replacement as it is stored, with how far the new version is."""

    replacement_id: int
    old: str
    new: str
    phase: ReplacementPhase
    since: datetime
    began_at: int
    """The sum of the new version's checkpoints at the beginning."""
    issued_by: str
    issued_at: datetime
    reached: int
    """The sum of the new version's checkpoints."""
    to_go: int | None
    """How many numbers it is behind the old version; None when it follows it no more."""
    elapsed: float


class Replacements:
    """The replacements of one deployment."""

    def __init__(self, pool: Pool, sql: Statements) -> None:
        self._pool = pool
        self._sql = sql

    async def begin(
        self,
        old: str,
        new: str,
        *,
        issued_by: str,
        side_effects: bool = False,
        handler: str | None = None,
        dry_run: bool = False,
    ) -> None:
        """Let a version follow another one, and take over when it has caught up.

        With a ``handler`` it is registered by that, with all else as the old one has it, in the same transaction: a
        refusal changes nothing. ``dry_run`` checks the same, and begins nothing. Raises SubscriptionNotFound;
        SubscriptionConflict when they read differently, when the new version has gone beyond the old one, when one of
        them is being replaced already, and while the partitions of one are about to change, or it has still to pass
        what its earlier ones had settled.
        """
        if old == new:
            raise InvalidArgument("new", "a version cannot replace itself")
        with translated():
            async with self._pool.connection() as conn, conn.transaction(force_rollback=dry_run):
                if handler is not None:
                    await self._register(conn, old, new, handler)
                pairs = await self._pairs(conn, old, new)
                await check_passed(conn, self._sql, [old, new])
                begun: dict[str, Any] = {
                    "old_id": pairs[0][0].subscription_id,
                    "new_id": pairs[0][1].subscription_id,
                    "began_at": sum(row.checkpoint for _, row in pairs),
                    "issued_by": issued_by,
                }
                try:
                    await conn.execute(self._sql.begin_replacement, begun)
                except psycopg.errors.UniqueViolation:
                    raise SubscriptionConflict(new, f"it, or {old!r}, is being replaced already") from None
                _check(old, new, pairs)
                for followed, row in pairs:
                    values = {"lock_id": row.lock_id, "follows": followed.lock_id, "side_effects": side_effects}
                    await conn.execute(self._sql.follow_partition, values)
                await self._want(conn, pairs[0][1], "running")
                await self._audit(conn, new, "replace", {"old": old, "side_effects": side_effects}, issued_by, "begun")

    async def latest(self, *, open_only: bool = False, limit: int = 100) -> list[ReplacementRow]:
        """Return replacements, newest first."""
        with translated():
            async with self._pool.connection() as conn:
                asked = {"open": open_only, "limit": limit}
                rows = await (await conn.execute(self._sql.list_replacements, asked)).fetchall()
        return [ReplacementRow(*row) for row in rows]

    async def step(self, row: ReplacementRow, decide: Decide) -> Step | None:
        """Look at a replacement under its locks and make the step that is due; returns which."""
        with translated():
            async with self._pool.connection() as conn, conn.transaction():
                phase, old_wanted, seconds, must_reach = await self._lock(conn, row.replacement_id)
                if phase not in OPEN:
                    return None
                pairs = await self._pairs(conn, row.old, row.new)
                versions = Versions(phase, seconds, pairs, must_reach)
                step = decide(versions)
                if step == "stop old":
                    await self._want(conn, versions.old[0], "stopped")
                    await self._become(conn, row, "taking over", old_wanted=versions.old[0].wanted)
                elif step == "resume old":
                    await self._want(conn, versions.old[0], old_wanted or "running")
                    begun = max(min(old.in_flight_to, old.head) for old in versions.old)
                    await self._become(conn, row, "catching up", must_reach=begun)
                elif step == "take over":
                    await self._take_over(conn, row, versions)
                return step

    async def cancel(self, new: str, *, issued_by: str) -> bool:
        """End a replacement that is not done: the old version goes on, the new one stops where it is.

        Returns whether there was one. The new version goes on following when it is resumed, and takes nothing over.
        """
        found = [row for row in await self.latest(open_only=True) if row.new == new]
        if not found:
            return False
        [row] = found
        with translated():
            async with self._pool.connection() as conn, conn.transaction():
                phase, old_wanted, _, _ = await self._lock(conn, row.replacement_id)
                if phase not in OPEN:
                    return False
                pairs = await self._pairs(conn, row.old, row.new)
                if phase == "taking over":
                    await self._want(conn, pairs[0][0], old_wanted or "running")
                await self._want(conn, pairs[0][1], "stopped")
                await self._become(conn, row, "cancelled")
                await self._audit(conn, new, "cancel replace", {"old": row.old}, issued_by, "cancelled")
        return True

    async def _take_over(self, conn: Connection, row: ReplacementRow, versions: Versions) -> None:
        for old in versions.old:
            reason = f"replaced by {row.new!r} after {old.checkpoint}"
            await conn.execute(self._sql.close_partition, {"lock_id": old.lock_id, "reason": reason})
        for old, new in versions.pairs:
            await conn.execute(self._sql.end_following, {"lock_id": new.lock_id, "followed": old.lock_id})
        await self._become(conn, row, "done")
        boundaries = [old.checkpoint for old, _ in versions.pairs]
        await self._audit(conn, row.new, "take over", {"old": row.old, "after": boundaries}, row.issued_by, "done")

    async def _register(self, conn: Connection, old: str, new: str, handler: str) -> None:
        """Register the new version with the old one's options, stopped until it follows."""
        await keep_partitions(conn, self._sql, [old, new], refuse=False)
        found = await (await conn.execute(self._sql.find_subscription, {"name": old})).fetchone()
        if found is None:
            raise SubscriptionNotFound(old)
        _, _, source, options, partitions, *_ = found
        start = await (await conn.execute(self._sql.stream_start, {"source": source})).fetchone()
        stream_id = None if start is None else start[1]
        version = Registration(new, handler, source, options.decode(), partitions, "stopped", 0, stream_id)
        if await put(conn, self._sql, version) is not None:
            problem = f"it is not partitioned as {old!r} is: change that first, or choose another name"
            raise SubscriptionConflict(new, problem)

    async def _lock(self, conn: Connection, replacement_id: int) -> tuple[ReplacementPhase, str | None, float, int]:
        asked = {"replacement_id": replacement_id}
        row = await (await conn.execute(self._sql.lock_replacement, asked)).fetchone()
        return ("cancelled", None, 0.0, 0) if row is None else (row[0], row[1], row[2], row[3])

    async def _pairs(self, conn: Connection, old: str, new: str) -> list[tuple[VersionRow, VersionRow]]:
        await keep_partitions(conn, self._sql, [old, new])
        asked = {"old": old, "new": new}
        rows = [VersionRow(*row) for row in await (await conn.execute(self._sql.lock_versions, asked)).fetchall()]
        before = {row.partition: row for row in rows if row.name == old}
        after = [row for row in rows if row.name == new]
        for name, found in ((old, before), (new, after)):
            if not found:
                raise SubscriptionNotFound(name)
        if len(before) not in (1, len(after)):
            raise SubscriptionConflict(
                new, f"it has {len(after)} partitions and {old!r} has {len(before)}: the same number, or one, is needed"
            )
        return [(before[row.partition if len(before) > 1 else 0], row) for row in after]

    async def _want(self, conn: Connection, row: VersionRow, wanted: str) -> None:
        values = {"subscription_id": row.subscription_id, "wanted": wanted}
        await conn.execute(self._sql.want_subscription, values)

    async def _become(
        self,
        conn: Connection,
        row: ReplacementRow,
        phase: ReplacementPhase,
        *,
        old_wanted: str | None = None,
        must_reach: int = 0,
    ) -> None:
        values = {
            "replacement_id": row.replacement_id,
            "phase": phase,
            "old_wanted": old_wanted,
            "must_reach": must_reach,
        }
        await conn.execute(self._sql.set_replacement_phase, values)

    async def _audit(
        self, conn: Connection, name: str, verb: str, arguments: dict[str, Any], issued_by: str, outcome: str
    ) -> None:
        values = {"name": name, "verb": verb, "issued_by": issued_by, "outcome": outcome}
        await conn.execute(self._sql.audit_parked, values | {"arguments": orjson.dumps(arguments).decode()})


def _check(old: str, new: str, pairs: Sequence[tuple[VersionRow, VersionRow]]) -> None:
    """Refuse what could not be taken over without an overlap or a gap. Raises SubscriptionConflict."""
    before, after = pairs[0]
    if before.source != after.source:
        raise SubscriptionConflict(new, f"it reads {after.source!r}, and {old!r} reads {before.source!r}")
    keys = [orjson.loads(row.options).get("partition_by") for row in (before, after)]
    if len({row.lock_id for row, _ in pairs}) > 1 and keys[0] != keys[1]:
        raise SubscriptionConflict(new, f"it is partitioned by {keys[1]!r}, and {old!r} by {keys[0]!r}")
    for before, after in pairs:
        if before.closed:
            raise SubscriptionConflict(old, "it was replaced already")
        if max(after.checkpoint, after.in_flight_to) > before.checkpoint:
            raise SubscriptionConflict(
                new,
                f"it may have handled events up to {max(after.checkpoint, after.in_flight_to)}, "
                f"beyond {old!r} at {before.checkpoint}: stop it, rewind it, or begin under another name",
            )
