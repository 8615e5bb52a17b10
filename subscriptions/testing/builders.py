"""Builders of recorded events, for tests that need no store."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from headwater.storage.model import RecordedEvent

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)


def recorded(
    position: int,
    stream: str = "stream-1",
    *,
    version: int | None = None,
    number: int | None = None,
    type: str = "Happened",
    data: Any = None,
    metadata: Any = None,
) -> RecordedEvent:
    """Build the event that a store would return for this position; ids and times follow from the position."""
    return RecordedEvent(
        position=position,
        stream=stream,
        version=position if version is None else version,
        number=position if number is None else number,
        id=uuid.UUID(int=position),
        type=type,
        raw_data=orjson.dumps(data),
        raw_metadata=None if metadata is None else orjson.dumps(metadata),
        causation_id=None,
        correlation_id=None,
        created_at=EPOCH + timedelta(seconds=position),
        raw_tags=None,
        schema_version=1,
    )
