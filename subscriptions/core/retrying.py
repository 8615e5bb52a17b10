"""Parked events that are handled again, beside the stream: one at a time, in order, each alone.

Knows nothing of the window: these events were passed long ago.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from headwater.storage.model import RecordedEvent


@dataclass(frozen=True, slots=True)
class ParkedRetry:
    """A parked event that is to be handled again."""

    event: RecordedEvent
    key: str | None
    attempts: int
    """How often it was handed out before."""


class Retrying:
    """The queue of one partition.

    1. One event is in flight at a time.
    2. After a failure the later events of the same key leave the queue: they wait behind it again.
    """

    def __init__(self) -> None:
        self._waiting: deque[ParkedRetry] = deque()
        self._in_flight: dict[int, tuple[ParkedRetry, int]] = {}

    def add(self, retries: Iterable[ParkedRetry]) -> None:
        """Take in events, in order of position; what is here already stays as it is."""
        here = {each.event.position for each in self._waiting}
        here |= {each.event.position for each, _ in self._in_flight.values()}
        self._waiting.extend(each for each in retries if each.event.position not in here)

    def next(self) -> ParkedRetry | None:
        """Return the event to hand out now, if there is one."""
        return self._waiting[0] if self._waiting and not self._in_flight else None

    def begin(self, delivery_id: int, consumer: int) -> None:
        """Note that the next event is handed out."""
        self._in_flight[delivery_id] = self._waiting.popleft(), consumer

    def answered(self, delivery_id: int, *, handled: bool) -> tuple[ParkedRetry, int] | None:
        """Note an answer; returns the event and its consumer, None when the delivery is not one of these."""
        found = self._in_flight.pop(delivery_id, None)
        if found is not None and not handled and found[0].key is not None:
            self._waiting = deque(each for each in self._waiting if each.key != found[0].key)
        return found

    def left(self, consumer: int) -> None:
        """Put back what a consumer had that has gone."""
        for delivery_id, (retry, holder) in tuple(self._in_flight.items()):
            if holder == consumer:
                del self._in_flight[delivery_id]
                self._waiting.appendleft(retry)

    @property
    def in_flight(self) -> int:
        """How many events are handed out and undecided."""
        return len(self._in_flight)

    def __bool__(self) -> bool:
        return bool(self._waiting or self._in_flight)
