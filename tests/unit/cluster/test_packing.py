"""A delivery is the same on both ends of its way to a handler actor."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from headwater.cluster.packing import pack, unpack
from headwater.storage.leases import Grant, PartitionKey, Progress
from headwater.storage.model import DecodedEvent, RecordedEvent, new_event_id
from headwater.subscriptions.ports import Delivered

GRANT = Grant(PartitionKey("totals", 2, 7), 5, "host", 1, Progress(40))
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def row(position: int, data: Any, cause: uuid.UUID | None = None) -> tuple[Any, ...]:
    return (position, "a-1", position, position, new_event_id(), "T", data, None, cause, None, NOW, ["tag"], 1)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [RecordedEvent(*row(1, b"{}"))],
        [RecordedEvent(*row(n, b'{"n": 1}', new_event_id() if n % 2 else None)) for n in range(1, 50)],
        [DecodedEvent(*row(1, {"n": 1})), RecordedEvent(*row(2, b"{}"))],
        ["what a mapper made", 3],
    ],
    ids=["none", "one", "many", "of two kinds", "mapped"],
)
def test_what_is_unpacked_equals_what_was_packed(events: Sequence[Any]) -> None:
    sent = Delivered(9, events, 2, GRANT, replaying=True)
    got = unpack(pack(sent))
    assert list(got.events) == list(events)
    assert [type(event) for event in got.events] == [type(event) for event in events]
    assert [getattr(event, "data", event) for event in got.events] == [getattr(e, "data", e) for e in events]
    assert (got.delivery_id, got.attempt, got.grant, got.commit, got.replaying) == (9, 2, GRANT, None, True)
