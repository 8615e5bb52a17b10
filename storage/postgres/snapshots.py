"""Saves, reads and deletes snapshots.

Never decides when one should be taken.
"""

from __future__ import annotations

from typing import Any, cast

from headwater.storage.errors import SnapshotNotFound
from headwater.storage.model import Snapshot
from headwater.storage.payloads import Ready
from headwater.storage.postgres.connect import Connection, row_cursor
from headwater.storage.postgres.encoding import payload_array
from headwater.storage.postgres.statements import Statements


async def record(conn: Connection, sql: Statements, snapshot: Snapshot) -> None:
    """Save a snapshot, made ready, beside those of other versions; one of the same version is replaced."""
    values = {
        "source": snapshot.source,
        "version": snapshot.version,
        "type": snapshot.type,
        "data": payload_array(sql.payload, snapshot.data.raw),
        "metadata": None if snapshot.metadata is None else payload_array(sql.payload, _ready(snapshot.metadata).raw),
        "created_at": snapshot.created_at,
        "schema_version": snapshot.schema_version,
    }
    await row_cursor(conn).execute(sql.record_snapshot, values)


async def read(conn: Connection, sql: Statements, source: str, up_to: int) -> Snapshot:
    """Return the snapshot of the highest version that is not above ``up_to``, not opened. Raises SnapshotNotFound."""
    cursor = row_cursor(conn)
    await cursor.execute(sql.read_snapshot, {"source": source, "up_to": up_to}, binary=True)
    row = await cursor.fetchone()
    if row is None:
        raise SnapshotNotFound(source)
    _, version, kind, data, metadata, created_at, schema_version = row
    stored = None if metadata is None else cast("Any", Ready(metadata))
    return Snapshot(source, version, kind, Ready(data), stored, created_at, schema_version)


def _ready(metadata: Any) -> Ready:
    return cast("Ready", metadata)


async def delete(conn: Connection, sql: Statements, source: str, before: int | None) -> int:
    """Delete a source's snapshots, or those below a version; returns how many there were."""
    cursor = await row_cursor(conn).execute(sql.delete_snapshots, {"source": source, "before": before})
    return cursor.rowcount
