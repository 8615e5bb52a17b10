"""A delivery is the same on both ends of its way to a handler actor."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from headwater.cluster.packing import pack, unpack
from headwater.storage.leases import Grant, PartitionKey, Progress
from headwater.storage.model import RecordedEvent, Seen, ViewedEvent, new_event_id
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
        ["what a mapper made", 3],
    ],
    ids=["none", "one", "many", "mapped"],
)
def test_what_is_unpacked_equals_what_was_packed(events: Sequence[Any]) -> None:
    sent = Delivered(9, events, 2, GRANT, replaying=True)
    got = unpack(pack(sent))
    assert list(got.events) == list(events)
    assert [type(event) for event in got.events] == [type(event) for event in events]
    assert [getattr(event, "data", event) for event in got.events] == [getattr(e, "data", e) for e in events]
    assert (got.delivery_id, got.attempt, got.grant, got.commit, got.replaying) == (9, 2, GRANT, None, True)


def test_an_opened_event_travels_as_it_is_stored() -> None:
    stored = RecordedEvent(*row(1, b'{"$sealed":"AAAA"}'))
    opened = ViewedEvent.of(stored, Seen(("T", 2), {"secret": 1}, None, None, False))
    packed = pack(Delivered(9, [opened, stored], 1, GRANT))
    assert b"secret" not in packed
    assert [type(event) for event in unpack(packed).events] == [RecordedEvent, RecordedEvent]
    assert list(unpack(packed).events) == [stored, stored]
