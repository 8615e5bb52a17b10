"""Saves, reads and deletes snapshots.

Never decides when one should be taken.
"""

from __future__ import annotations

from headwater.storage.codec import Codec
from headwater.storage.errors import SnapshotNotFound
from headwater.storage.model import Snapshot
from headwater.storage.postgres.connect import Connection, row_cursor
from headwater.storage.postgres.encoding import payload_array
from headwater.storage.postgres.statements import Statements


async def record(conn: Connection, sql: Statements, codec: Codec, snapshot: Snapshot) -> None:
    """Save a snapshot beside those of other versions; one of the same version is replaced. Raises EncodingFailed."""
    kind, metadata = snapshot.type, snapshot.metadata
    values = {
        "source": snapshot.source,
        "version": snapshot.version,
        "type": kind,
        "data": payload_array(sql.payload, codec.encode(kind, snapshot.data)),
        "metadata": None if metadata is None else payload_array(sql.payload, codec.encode(kind, metadata)),
        "created_at": snapshot.created_at,
    }
    await row_cursor(conn).execute(sql.record_snapshot, values)


async def read(conn: Connection, sql: Statements, codec: Codec, source: str, up_to: int) -> Snapshot:
    """Return the snapshot of the highest version that is not above ``up_to``. Raises SnapshotNotFound."""
    cursor = row_cursor(conn)
    await cursor.execute(sql.read_snapshot, {"source": source, "up_to": up_to}, binary=True)
    row = await cursor.fetchone()
    if row is None:
        raise SnapshotNotFound(source)
    _, version, kind, data, metadata, created_at = row
    decoded = None if metadata is None else codec.decode(kind, metadata)
    return Snapshot(source, version, kind, codec.decode(kind, data), decoded, created_at)


async def delete(conn: Connection, sql: Statements, source: str, before: int | None) -> int:
    """Delete a source's snapshots, or those below a version; returns how many there were."""
    cursor = await row_cursor(conn).execute(sql.delete_snapshots, {"source": source, "before": before})
    return cursor.rowcount
