"""Links: puts events that are stored elsewhere into a further stream.

Never copies an event and never changes the store-wide order.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from headwater.storage.errors import AlreadyLinked, EventNotFound, StreamDeleted
from headwater.storage.model import Expected
from headwater.storage.postgres.appending import wrong_version
from headwater.storage.postgres.arrays import UuidArray, uuid_part
from headwater.storage.postgres.connect import Connection, row_cursor
from headwater.storage.postgres.encoding import expected_code
from headwater.storage.postgres.statements import Statements

_WRONG_VERSION, _DELETED, _NOT_STORED = 1, 2, 3


async def link(conn: Connection, sql: Statements, stream: str, ids: Sequence[uuid.UUID], expected: Expected) -> int:
    """Link events by their ids, all or none; returns the stream's new version.

    Raises WrongExpectedVersion, StreamDeleted, EventNotFound, AlreadyLinked.
    """
    wanted = UuidArray.of_wire(b"".join([uuid_part(id) for id in ids]), len(ids))
    cursor = row_cursor(conn)
    await cursor.execute(sql.link, {"stream": stream, "expected": expected_code(expected), "ids": wanted}, binary=True)
    row = await cursor.fetchone()
    assert row is not None
    version, outcome, culprit = row
    if not outcome:
        return int(version)
    if outcome == _WRONG_VERSION:
        raise wrong_version(stream, expected, version)
    if outcome == _DELETED:
        raise StreamDeleted(stream)
    raise EventNotFound(culprit) if outcome == _NOT_STORED else AlreadyLinked(stream, culprit)
