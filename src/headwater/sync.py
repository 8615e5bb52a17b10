"""Headwater without ``await``: the same store for synchronous programs.

::

    from headwater import NewEvent, sync

    with sync.connect("postgresql://localhost/shop") as store:
        store.append("order-1", [NewEvent("OrderPlaced", {"total": 42})])
"""

from __future__ import annotations

from typing import Any

from headwater.storage.blocking import BlockingEventStore
from headwater.storage.opening import connect as _connect

__all__ = ["BlockingEventStore", "connect"]


def connect(url: str | None = None, **settings: Any) -> BlockingEventStore:
    """Open a store; close it, or use it as a context manager. Takes what :func:`headwater.connect` takes."""
    return BlockingEventStore(lambda: _connect(url, **settings))
