"""What keeps a subscription's partitions as they are, and what has to wait while they change.

Asked under locks, so that the one and the other exclude each other. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from headwater.storage.errors import SubscriptionConflict, unpassed
from headwater.storage.postgres.connect import Connection
from headwater.storage.postgres.statements import Statements


async def obstacle(conn: Connection, sql: Statements, name: str) -> SubscriptionConflict | None:
    """Return why the number of partitions cannot change now; None when it can.

    Replays, replacements and the boundary of a rewind belong to single partitions: no new set could keep them exactly.
    """
    row = await (await conn.execute(sql.repartition_obstacles, {"name": name})).fetchone()
    if row is None:
        return None
    partitions, closed, follows, followed_by, replays, rewinds, replay_to = row
    keep = f"it keeps its {partitions} partitions"
    if closed:
        return SubscriptionConflict(name, f"{keep}: another version has replaced it", "replacement")
    if follows is not None:
        problem = f"{keep} until it has taken over from {follows!r}, or is deleted"
        return SubscriptionConflict(name, problem, "replacement")
    if followed_by is not None:
        problem = f"{keep} while {followed_by!r} follows it: wait until that has taken over, or delete that"
        return SubscriptionConflict(name, problem, "replacement")
    if replays:
        return SubscriptionConflict(name, f"{keep} until its replay has ended, or was cancelled", "replay")
    if rewinds:
        return SubscriptionConflict(name, f"{keep} until it was rewound as it was asked to", "rewind")
    if replay_to is not None:
        problem = f"{keep} until all that its rewind hands out again is settled, up to {replay_to}"
        return SubscriptionConflict(name, problem, "rewind")
    return None


async def keep_partitions(conn: Connection, sql: Statements, names: Sequence[str], *, refuse: bool = True) -> None:
    """Let nobody change the partitions of these subscriptions before this transaction has ended.

    Raises SubscriptionConflict when they are about to change, unless told not to ``refuse``.
    """
    rows = await (await conn.execute(sql.keep_partitions, {"names": list(names)})).fetchall()
    for name, to in rows:
        if to is not None and refuse:
            raise SubscriptionConflict(name, f"wait until it has its {to} partitions", "repartition")


async def check_passed(conn: Connection, sql: Statements, names: Sequence[str], *, below: int | None = None) -> None:
    """Raise SubscriptionConflict for one whose checkpoints do not tell all yet that earlier partitions had settled.

    With ``below`` only if some of that lies above this number.
    """
    rows = await (await conn.execute(sql.unpassed_seams, {"names": list(names)})).fetchall()
    for name, end in rows:
        if below is None or below < end:
            raise unpassed(name, end)
