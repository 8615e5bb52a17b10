"""A reader that knows what was settled before: it stops at that boundary until all up to there is settled again.

So no delivery mixes replayed events with new ones. Decides nothing about delivery.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from headwater.storage.leases import Boundary, Grant
from headwater.storage.model import EVERYTHING, EventPage, Filter
from headwater.subscriptions.ports import Boundaries, EventReader

CROSSING_CHECK: Final = 0.02
"""How often it is looked whether everything up to the boundary is settled, in seconds."""

NOTHING: Final = Boundary()


class Until:
    """The boundary of a replay of a range: nothing above a number is ever read."""

    def __init__(self, until: int, *, side_effects: bool = True) -> None:
        self._boundary = Boundary(until, final=False, side_effects=side_effects)

    async def boundary(self, grant: Grant) -> Boundary:  # noqa: ARG002  # the same under every grant
        """Return it."""
        return self._boundary


class BoundedReader:
    """An event reader in front of another one, for one partition under one grant.

    1. While the boundary is not final, nothing above it is read.
    2. Nothing above it is read before everything up to it is settled.
    """

    def __init__(self, reader: EventReader, boundaries: Boundaries, grant: Grant, settled: Callable[[], int]) -> None:
        self._reader = reader
        self._boundaries = boundaries
        self._grant = grant
        self._settled = settled
        self._known: Boundary | None = None
        self._crossed = False
        self._moves = 0
        """How often the boundary was moved: a look that began before tells nothing."""

    @property
    def boundary(self) -> Boundary:
        """The boundary as it was last seen."""
        return self._known or NOTHING

    async def look(self) -> None:
        """Ask where the boundary is, so that the first page need not wait for it. Raises StaleEpoch."""
        self._known = await self._boundaries.boundary(self._grant)

    def forget(self) -> None:
        """Ask anew where the boundary is: it was moved."""
        self._known, self._crossed = None, False
        self._moves += 1

    async def read_page(self, source: str, after: int, limit: int, *, where: Filter = EVERYTHING) -> EventPage:
        """Read a page of what may be handed out by now; see the event store's method."""
        if self._crossed:
            return await self._reader.read_page(source, after, limit, where=where)
        known = self._known
        if known is None or (not known.final and after >= known.until):
            moves = self._moves
            known = await self._boundaries.boundary(self._grant)
            if moves == self._moves:
                self._known = known
        if after < known.until:
            return _up_to(known.until, await self._reader.read_page(source, after, limit, where=where))
        if not known.final:
            return EventPage((), after, after)
        while self._settled() < known.until:  # noqa: ASYNC110  # the machine has a question, not an event
            await asyncio.sleep(CROSSING_CHECK)
        self._crossed = self._known is known
        return await self._reader.read_page(source, after, limit, where=where)

    async def head(self) -> int:
        """Return the store's head."""
        return await self._reader.head()


def _up_to(until: int, page: EventPage) -> EventPage:
    if page.read_to <= until:
        return page
    return replace(page, events=[event for event in page.events if event.number <= until], read_to=until)
