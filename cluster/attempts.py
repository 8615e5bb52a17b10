"""What has failed here, why, and how long until it is tried again: twice as long each time, up to a most.

Knows nothing of what is tried; the time is always given.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from headwater.storage.leases import PartitionKey

REMEMBERED: Final = 5
"""For so many times the pause it is remembered of what has left this host that it failed: until then it would be given
back in vain."""


@dataclass(frozen=True, slots=True)
class _Failure:
    what: Any
    reason: str
    pause: float
    at: float


class Attempts:
    """The failures of partitions, each until it succeeds, or something else is tried in its place."""

    def __init__(self, first: float, most: float) -> None:
        self._first = first
        self._most = most
        self._failures: dict[PartitionKey, _Failure] = {}

    def failed(self, key: PartitionKey, what: Any, reason: str, now: float) -> float:
        """Take note; returns how long to wait before it is tried again, in seconds."""
        last = self._failures.get(key)
        again = last is not None and last.what == what
        pause = min(self._most, 2 * last.pause) if last is not None and again else self._first
        self._failures[key] = _Failure(what, reason, pause, now)
        return pause

    def succeeded(self, key: PartitionKey) -> None:
        """Begin anew with the shortest pause."""
        self._failures.pop(key, None)

    def last(self, key: PartitionKey, what: Any, now: float) -> tuple[str, float] | None:
        """Return why it failed and how long it still rests, in seconds; None when it may be tried at once."""
        failure = self._failures.get(key)
        if failure is None or failure.what != what or now >= failure.at + failure.pause:
            return None
        return failure.reason, failure.at + failure.pause - now

    def reasons(
        self, failing: Collection[PartitionKey], trying: Collection[PartitionKey], now: float
    ) -> dict[PartitionKey, str]:
        """Return why partitions cannot run: those that are failing here, and for a while those that were here.

        Of those that are being tried it is not known.
        """
        return {
            key: failure.reason
            for key, failure in self._failures.items()
            if key in failing or (key not in trying and now < failure.at + REMEMBERED * failure.pause)
        }
