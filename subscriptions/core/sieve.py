"""Which of the read events are delivered, and under which partition key.

Calls the user's selector and key function, both functions of the event alone; what they raise becomes a value.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from headwater.storage.model import RecordedEvent

KeyFunction: TypeAlias = Callable[[RecordedEvent], Any]
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
    ) -> None:
        self._selector = selector
        self._key = key
        self._partitions = partitions
        self._partition = partition
        self._open = selector is None and partitions == 1

    def key_of(self, event: RecordedEvent) -> str | None:
        """Return the event's partition key. Raises whatever the user's function raises."""
        if self._key is None:
            return event.stream
        key = self._key(event)
        return key if key is None or type(key) is str else str(key)

    def safe_key_of(self, event: RecordedEvent) -> str | None:
        """Return the event's partition key, or None when the user's function fails."""
        try:
            return self.key_of(event)
        except Exception:  # noqa: BLE001  # a user's function may raise anything; the event is a fault already
            return None

    def sift(self, events: Sequence[RecordedEvent], *, with_keys: bool) -> Sifted:
        """Leave out what is not to be delivered here; find the keys when they are needed."""
        if self._open and not with_keys:
            return Sifted(events, None)
        if self._open and self._key is None:
            return Sifted(events, [event.stream for event in events])
        kept: list[RecordedEvent] = []
        keys: list[str | None] = []
        faults: dict[int, str] = {}
        for event in events:
            try:
                if self._selector is not None and not self._selector(event):
                    continue
                key = self.key_of(event)
            except Exception as error:  # noqa: BLE001  # a user's function may raise anything; it must not end the reading
                if not self._mine(None, event):
                    continue
                faults[len(kept)] = f"{type(error).__name__}: {error}"
                key = None
            else:
                if not self._mine(key, event):
                    continue
            kept.append(event)
            keys.append(key)
        return Sifted(kept, keys, faults)

    def _mine(self, key: str | None, event: RecordedEvent) -> bool:
        if self._partitions == 1:
            return True
        # Not hash(): it differs from process to process.
        word = key if key is not None else str(event.position)
        return zlib.crc32(word.encode()) % self._partitions == self._partition
