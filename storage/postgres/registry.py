"""The wanted state in Postgres: which subscriptions should run, and how they stand.

Decides nothing: it writes down what is asked for, and reads what is there. Where they run is in ``placement``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson
import psycopg

from headwater.storage.errors import (
    InvalidArgument,
    StreamDeleted,
    SubscriptionConflict,
    SubscriptionNotFound,
)
from headwater.storage.leases import PartitionKey
from headwater.storage.model import ALL, MAX_BIGINT, MAX_NAME_BYTES
from headwater.storage.postgres.connect import Connection, Pool
from headwater.storage.postgres.failures import translated
from headwater.storage.postgres.obstacles import obstacle
from headwater.storage.postgres.statements import Statements
from headwater.storage.registry import (
    MOST_PARKED,
    PartitionState,
    StartPoint,
    SubscriptionRecord,
    Wanted,
)
from headwater.storage.store import EventStore

_VERBS = {"running": "resume", "paused": "pause", "stopped": "stop"}


@dataclass(frozen=True, slots=True)
class Registration:
    """What is written of a subscription: its wanted state, and where it begins, only the first time."""

    name: str
    handler: str
    source: str
    options: str
    """As JSON."""
    partitions: int
    wanted: Wanted
    checkpoint: int
    stream_id: int | None
    """The incarnation of the source that the checkpoint counts in."""


async def put(conn: Connection, sql: Statements, registration: Registration) -> int | None:
    """Register in the caller's transaction; returns how many partitions there will be, None when so many there are.

    Raises SubscriptionConflict for another source than it has.
    """
    row = await (await conn.execute(sql.register_subscription, asdict(registration))).fetchone()
    if row is not None:
        becomes: int | None = row[1]
        return becomes
    name = registration.name
    found = await (await conn.execute(sql.find_subscription, {"name": name})).fetchone()
    if found is None:
        raise SubscriptionNotFound(name)  # deleted by somebody else in this very moment
    reads = _subscription(found).source
    problem = f"it reads {reads!r}, not {registration.source!r}; delete it first, or choose another name"
    raise SubscriptionConflict(name, problem)


class Registry:
    """Everything that is wanted of the cluster, from any process that reaches the database."""

    def __init__(self, pool: Pool, sql: Statements, store: EventStore) -> None:
        self._pool = pool
        self._sql = sql
        self._store = store

    async def register(
        self,
        name: str,
        handler: str,
        options: Mapping[str, Any],
        *,
        source: str = ALL,
        partitions: int = 1,
        start: StartPoint = "origin",
        wanted: Wanted = "running",
    ) -> SubscriptionRecord:
        """Register a subscription, or change the handler and options of the one that is there; safe to repeat.

        ``start`` and ``wanted`` count only the first time. Another number of partitions, or another ``partition_by`` of
        several, is what the supervisor brings about then. Raises SubscriptionConflict for another source than it has,
        and while its partitions cannot change (nothing is changed then; ``wait_for`` says what has to end first);
        StreamDeleted for "current" on a soft-deleted stream, InvalidArgument.
        """
        if not name or "\0" in name or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
            raise InvalidArgument("name", f"a name has 1 to {MAX_NAME_BYTES} bytes and no NUL")
        if not 1 <= partitions <= 10_000:
            raise InvalidArgument("partitions", f"{partitions} is not a number of 1 to 10000")
        checkpoint, stream_id = 0, None
        if await self.find(name) is None:
            checkpoint, stream_id = await self._resolve(source, start)
        registration = Registration(
            name,
            handler,
            source,
            orjson.dumps(dict(options)).decode(),
            partitions,
            wanted,
            checkpoint,
            stream_id,
        )
        with translated():
            async with self._pool.connection() as conn, conn.transaction():
                becomes = await put(conn, self._sql, registration)
                # Asked under the row's lock, which everybody takes who asks something of single partitions.
                if becomes is not None and (conflict := await obstacle(conn, self._sql, name)) is not None:
                    raise conflict
        found = await self.find(name)
        if found is None:
            raise SubscriptionNotFound(name)  # deleted by somebody else in this very moment
        return found

    async def find(self, name: str) -> SubscriptionRecord | None:
        """Return the subscription of that name, None when there is none."""
        rows = await self._rows(self._sql.find_subscription, {"name": name})
        return _subscription(rows[0]) if rows else None

    async def subscriptions(self) -> list[SubscriptionRecord]:
        """Return every registered subscription, by name."""
        return [_subscription(row) for row in await self._rows(self._sql.list_subscriptions)]

    async def delete(self, name: str, *, dry_run: bool = False) -> bool:
        """Delete a subscription with its checkpoints, parked events and audit; returns whether it was there.

        Whoever still runs it can write nothing more. Raises SubscriptionConflict while it is about to replace another
        one or to be replaced, and while a new version follows it. ``dry_run`` does the same and takes it back.
        """
        with translated():
            async with self._pool.connection() as conn, conn.transaction(force_rollback=dry_run):
                try:
                    cursor = await conn.execute(self._sql.delete_subscription, {"name": name})
                except psycopg.errors.ForeignKeyViolation:
                    problem = "a new version follows it: delete that one first"
                    raise SubscriptionConflict(name, problem, "replacement") from None
                if cursor.rowcount:
                    return True
        if await self.find(name) is None:
            return False
        problem = "a replacement is under way: wait for it, or cancel it, before one of its versions is deleted"
        raise SubscriptionConflict(name, problem, "replacement")

    async def set_wanted(self, name: str, wanted: Wanted, *, issued_by: str, reason: str = "") -> None:
        """Say whether a subscription should run, and why; kept in the audit, and shown as long as it rests.

        Raises SubscriptionNotFound; SubscriptionConflict for one that another version has replaced.
        """
        values = {
            "name": name,
            "wanted": wanted,
            "verb": _VERBS[wanted],
            "issued_by": issued_by,
            "reason": reason,
            "arguments": orjson.dumps({"reason": reason} if reason else {}).decode(),
        }
        if not await self._rows(self._sql.set_wanted, values):
            if await self.find(name) is None:
                raise SubscriptionNotFound(name)
            raise SubscriptionConflict(name, "another version has taken over; let it replace that one to go back")

    async def states(self, name: str | None = None) -> list[PartitionState]:
        """Return the partitions of one subscription, or of all, with their lag."""
        return [
            PartitionState(PartitionKey(row[0], row[1], row[2]), orjson.loads(row[3]), *row[4:])
            for row in await self._rows(self._sql.partition_states, {"name": name, "most": MOST_PARKED})
        ]

    async def number_at(self, source: str, when: datetime) -> int:
        """Return the number, in a source's own counting, before its first event at or after a time."""
        number, _ = await self._resolve(source, when)
        return number

    async def place_of(self, source: str, start: StartPoint) -> tuple[int, int | None]:
        """Return the number after which a start begins, and the incarnation of the stream that it counts in.

        Raises StreamDeleted, InvalidArgument, as ``register`` does.
        """
        return await self._resolve(source, start)

    async def _resolve(self, source: str, start: StartPoint) -> tuple[int, int | None]:
        """Return the checkpoint to begin with, and the incarnation of the stream that it counts in."""
        if isinstance(start, bool) or (isinstance(start, int) and not 0 <= start <= MAX_BIGINT):
            raise InvalidArgument("start", f"{start!r} is not a number of 0 or more")
        if isinstance(start, datetime) and start.tzinfo is None:
            raise InvalidArgument("start", "a time needs a time zone")
        if source == ALL:
            match start:
                case "origin":
                    return 0, None
                case "current":
                    return await self._store.head(), None
                case datetime():
                    return await self._store.position_at(start), None
                case int():
                    return start, None
        rows = await self._rows(self._sql.stream_start, {"source": source})
        version, stream_id, deleted = rows[0] if rows else (0, None, False)
        match start:
            case "origin":
                return 0, stream_id
            case "current":
                if deleted:
                    raise StreamDeleted(source)
                return int(version), stream_id
            case datetime():
                found = await self._rows(self._sql.stream_number_before, {"source": source, "time": start})
                return (version if found[0][0] is None else found[0][0]), stream_id
            case int():
                return start, stream_id
        raise InvalidArgument("start", f"{start!r} is neither 'origin', 'current', a number nor a time")

    async def _rows(self, statement: bytes, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        with translated():
            async with self._pool.connection() as conn:
                return await (await conn.execute(statement, parameters)).fetchall()


def _subscription(row: tuple[Any, ...]) -> SubscriptionRecord:
    name, handler, source, options, *rest = row
    return SubscriptionRecord(name, handler, source, orjson.loads(options), *rest)
