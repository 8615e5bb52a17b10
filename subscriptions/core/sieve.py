"""Which of the read events are delivered, and under which partition key.

Calls the user's selector and key function, both functions of the event alone; what they raise becomes a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from headwater.storage.model import RecordedEvent
from headwater.subscriptions.core.seam import KeyFunction, Seam, key_of, share_of
from headwater.subscriptions.raised import described

Selector: TypeAlias = Callable[[RecordedEvent], Any]


@dataclass(frozen=True, slots=True)
class Sifted:
    """What is left of a page."""

    events: Sequence[RecordedEvent]
    keys: Sequence[str | None] | None
    """The key of each event; None when nobody asked for keys."""
    faults: Mapping[int, str] = field(default_factory=dict)
    """Errors of the user's functions, by index into ``events``."""


class Sieve:
    """A subscription's selector, key function and share of the partitions."""

    def __init__(
        self,
        *,
        selector: Selector | None = None,
        key: KeyFunction | None = None,
        partitions: int = 1,
        partition: int = 0,
        seam: Seam | None = None,
    ) -> None:
        self._selector = selector
        self._key = key
        self._partitions = partitions
        self._partition = partition
        self._seam = seam
        self._open = selector is None and partitions == 1

    def unpassed(self, checkpoint: int) -> int:
        """Return up to where a checkpoint does not tell all that earlier sets had settled; 0 when it does."""
        return self._seam.end if self._seam is not None and checkpoint < self._seam.end else 0

    def without_seam(self) -> Sieve:
        """Return one that delivers, too, what earlier sets of partitions had settled: after a rewind."""
        if self._seam is None:
            return self
        return Sieve(selector=self._selector, key=self._key, partitions=self._partitions, partition=self._partition)

    def key_of(self, event: RecordedEvent) -> str | None:
        """Return the event's partition key. Raises whatever the user's function raises."""
        return key_of(event, self._key)

    def safe_key_of(self, event: RecordedEvent) -> str | None:
        """Return the event's partition key, or None when the user's function fails."""
        try:
            return self.key_of(event)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001  # a user's function may raise anything; the event is a fault already
            return None

    def sift(self, events: Sequence[RecordedEvent], *, with_keys: bool) -> Sifted:
        """Leave out what is not to be delivered here; find the keys when they are needed."""
        seam = self._seam if self._seam is not None and events and events[0].number <= self._seam.end else None
        open_to_all = self._open and seam is None
        if open_to_all and not with_keys:
            return Sifted(events, None)
        if open_to_all and self._key is None:
            return Sifted(events, [event.stream for event in events])
        kept: list[RecordedEvent] = []
        keys: list[str | None] = []
        faults: dict[int, str] = {}
        for event in events:
            if seam is not None and seam.settled(event):
                continue
            try:
                if self._selector is not None and not self._selector(event):
                    continue
                key = self.key_of(event)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001  # a user's function may raise anything; it must not end the reading
                if not self._mine(None, event):
                    continue
                faults[len(kept)] = described(error)
                key = None
            else:
                if not self._mine(key, event):
                    continue
            kept.append(event)
            keys.append(key)
        return Sifted(kept, keys, faults)

    def _mine(self, key: str | None, event: RecordedEvent) -> bool:
        return self._partitions == 1 or share_of(key, event.position, self._partitions) == self._partition
