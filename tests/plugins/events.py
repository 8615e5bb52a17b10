"""Builders of events for tests."""

from __future__ import annotations

from typing import Any

from headwater.storage.model import NewEvent


def events(number: int, type: str = "OrderPlaced", **fields: Any) -> list[NewEvent]:
    """Return so many new events, numbered from 1 in their data."""
    return [NewEvent(type, {"n": n}, **fields) for n in range(1, number + 1)]
