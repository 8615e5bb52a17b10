"""Readers of pages between a store and whoever keeps events: kept as they are stored, opened when they are read.

Never keeps an event itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from headwater.storage.model import EVERYTHING, EventPage, Filter
from headwater.storage.payloads import Payloads


class StoredPages(Protocol):
    """A store that also hands out its events unopened."""

    async def read_stored_page(self, source: str, after: int, limit: int, *, where: Filter = ...) -> EventPage: ...

    async def head(self) -> int: ...


class Pages(Protocol):
    """Whatever reads pages of events."""

    async def read_page(self, source: str, after: int, limit: int, *, where: Filter = ...) -> EventPage: ...

    async def head(self) -> int: ...


class OpeningReader:
    """Opens the events that another reader has kept as they are stored, each time that they are read."""

    def __init__(self, reader: Pages, payloads: Payloads) -> None:
        self._reader = reader
        self._payloads = payloads

    async def read_page(self, source: str, after: int, limit: int, *, where: Filter = EVERYTHING) -> EventPage:
        """Read a page; see the event store's method."""
        page = await self._reader.read_page(source, after, limit, where=where)
        return replace(page, events=await self._payloads.open(page.events))

    async def head(self) -> int:
        """Ask the store for its head."""
        return await self._reader.head()


class StoredReader:
    """Reads pages of events that nobody has opened: what keeps events must not keep what they say."""

    def __init__(self, store: StoredPages) -> None:
        self._store = store

    async def read_page(self, source: str, after: int, limit: int, *, where: Filter = EVERYTHING) -> EventPage:
        """Read a page; see the event store's method."""
        return await self._store.read_stored_page(source, after, limit, where=where)

    async def head(self) -> int:
        """Ask the store for its head."""
        return await self._store.head()
