"""How far subscriptions are, asked of Postgres by whoever waits for one.

Never waits itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from headwater.storage.postgres.connect import Connection
from headwater.storage.postgres.statements import Statements
from headwater.storage.waiting import Standing, Trouble


async def standings(conn: Connection, sql: Statements, subscription: str, position: int) -> Sequence[Standing]:
    """Return how each partition stands to a position; nothing for a subscription that is not registered."""
    asked = {"name": subscription, "position": position}
    return [Standing(*row) for row in await (await conn.execute(sql.subscription_standing, asked)).fetchall()]


async def trouble(conn: Connection, sql: Statements, subscription: str, partition: int) -> Trouble:
    """Return what a partition is doing and why."""
    asked = {"name": subscription, "partition": partition}
    row = await (await conn.execute(sql.partition_trouble, asked)).fetchone()
    return Trouble("deleted", "the subscription was deleted", 0) if row is None else Trouble(*row)
