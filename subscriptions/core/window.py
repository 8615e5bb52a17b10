"""What was read and is not settled yet, and the watermark that follows from it.

Knows nothing of consumers, keys or failures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from headwater.storage.model import RecordedEvent

TRIM: Final = 1024
"""Settled places are dropped from the front in lumps of at least so many, so that dropping costs next to nothing."""


class Window:
    """The events between the watermark and the last read, each with a place: 0, 1, 2, ... in order of reading.

    1. Places are given out once and never again.
    2. The watermark never falls, and never passes an event that is not settled.
    3. Work per call is proportional to ranges, not to events, when the places are a range.
    """

    __slots__ = ("_base", "_events", "_low", "_settled", "read_to", "unsettled")

    def __init__(self, read_to: int) -> None:
        self.read_to = read_to
        """Everything of the source up to this number was read."""
        self.unsettled = 0
        """How many events were read and are not settled."""
        self._events: list[RecordedEvent | None] = []
        self._settled = bytearray()
        self._base = 0
        self._low = 0

    def extend(self, events: Sequence[RecordedEvent], read_to: int) -> range:
        """Take in what a read brought (in order); returns the places of the events."""
        first = self._base + len(self._events)
        self._events.extend(events)
        self._settled.extend(bytes(len(events)))
        self.unsettled += len(events)
        self.read_to = read_to
        return range(first, first + len(events))

    def event(self, place: int) -> RecordedEvent:
        """Return an unsettled event."""
        event = self._events[place - self._base]
        if event is None:
            raise LookupError(place)
        return event

    def events(self, places: Sequence[int]) -> list[RecordedEvent]:
        """Return unsettled events."""
        base = self._base
        if isinstance(places, range):
            found = self._events[places.start - base : places.stop - base]
        else:
            found = [self._events[place - base] for place in places]
        return found  # type: ignore[return-value]  # only settled places hold None

    def number_at(self, place: int) -> int:
        """Return the number up to which everything stands before or at a place, as far as it was read."""
        index = place - self._base
        event = self._events[index] if index < len(self._events) else None
        return self.read_to if event is None else event.number

    def settle(self, places: Sequence[int]) -> None:
        """Count these places, each unsettled until now, as settled."""
        base = self._base
        if isinstance(places, range):
            start, stop = places.start - base, places.stop - base
            self._settled[start:stop] = b"\1" * len(places)
            self._events[start:stop] = [None] * len(places)
        else:
            for place in places:
                self._settled[place - base] = 1
                self._events[place - base] = None
        self.unsettled -= len(places)
        low = self._settled.find(0, self._low)
        self._low = len(self._settled) if low < 0 else low
        if self._low >= TRIM and self._low * 2 >= len(self._settled):
            del self._events[: self._low]
            del self._settled[: self._low]
            self._base += self._low
            self._low = 0

    @property
    def watermark(self) -> int:
        """The highest number with everything up to it settled."""
        if self._low == len(self._events):
            return self.read_to
        event = self._events[self._low]
        assert event is not None
        return event.number - 1

    def watermark_after(self, places: Sequence[int]) -> int:
        """Return what the watermark will be once these places are settled, too."""
        gone = {place - self._base for place in places}
        low = self._low
        while low >= 0 and low in gone:
            low = self._settled.find(0, low + 1)
        if low < 0 or low == len(self._events):
            return self.read_to
        event = self._events[low]
        assert event is not None
        return event.number - 1

    @property
    def span(self) -> int:
        """How many places there are from the first unsettled one to the last: what a crash would deliver again."""
        return len(self._events) - self._low

    def __repr__(self) -> str:
        return f"<Window watermark={self.watermark} read_to={self.read_to} unsettled={self.unsettled}>"
