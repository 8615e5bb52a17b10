"""Parked events that are handled again, beside the stream: one at a time, in order, each alone.

Knows nothing of the window: these events were passed before.
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
    number: int
    """Where it stands in the source."""


class Retrying:
    """The queue of one partition.

    1. One event is in flight at a time, and the next one is handed out once it is written down how that went: else it
       could be settled before an earlier one of its key, which would come again after it.
    2. An event is handed out only once the durable checkpoint has passed it, and all up to it is settled here: else it
       would be read again after a crash, or be parked again, found settled, and be parked and handled anew.
    3. After a failure the later events of the same key leave the queue: they wait behind it again.
    """

    def __init__(self) -> None:
        self._waiting: deque[ParkedRetry] = deque()
        self._in_flight: dict[int, tuple[ParkedRetry, int]] = {}
        self._writing: int | None = None

    def add(self, retries: Iterable[ParkedRetry]) -> None:
        """Take in events, in order of position; what is here already stays as it is."""
        here = {each.event.position for each in self._waiting}
        here |= {each.event.position for each, _ in self._in_flight.values()}
        if self._writing is not None:
            here.add(self._writing)
        self._waiting.extend(each for each in retries if each.event.position not in here)

    def clear(self) -> None:
        """Forget what waits: it is looked for anew."""
        self._waiting.clear()

    def next(self, checkpoint: int) -> ParkedRetry | None:
        """Return the event to hand out now that this checkpoint is durable, if there is one."""
        if self.busy or not self._waiting or self._waiting[0].number > checkpoint:
            return None
        return self._waiting[0]

    def begin(self, delivery_id: int, consumer: int) -> None:
        """Note that the next event is handed out."""
        self._in_flight[delivery_id] = self._waiting.popleft(), consumer

    def holds(self, delivery_id: int) -> bool:
        """Whether a delivery is one of these, and is not answered."""
        return delivery_id in self._in_flight

    def answered(self, delivery_id: int, *, handled: bool) -> tuple[ParkedRetry, int] | None:
        """Note an answer; returns the event and its consumer, None when the delivery is not one of these."""
        found = self._in_flight.pop(delivery_id, None)
        if found is not None:
            self._writing = found[0].event.position
            if not handled:
                self._forget(found[0].key)
        return found

    def written(self, position: int) -> None:
        """Note that it was tried to write down how that went."""
        if self._writing == position:
            self._writing = None

    def withdrawn(self, delivery_id: int) -> int | None:
        """Note that an event was not handed out after all; returns the consumer that should have got it."""
        retry, consumer = self._in_flight.pop(delivery_id, (None, None))
        if retry is not None:
            self._forget(retry.key)
        return consumer

    def _forget(self, key: str | None) -> None:
        if key is not None:
            self._waiting = deque(each for each in self._waiting if each.key != key)

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

    @property
    def busy(self) -> bool:
        """Whether one is handed out, or was and that is not written down."""
        return bool(self._in_flight) or self._writing is not None

    def __bool__(self) -> bool:
        return bool(self._waiting) or self.busy
