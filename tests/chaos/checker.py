"""Judges what handlers noted: what was lost, out of order, delivered again, or handled by a former owner.

Pure: it is fed notes in the order of their times, and told at the end how far the store goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.journal import Note


@dataclass(slots=True)
class Followed:
    """What is known of one subscription."""

    seen: bytearray = field(default_factory=bytearray)
    """One byte for each position: whether it was handled."""
    newest: dict[int, int] = field(default_factory=dict)
    """By stream: the highest position handled so far."""
    epochs: dict[int, int] = field(default_factory=dict)
    """By partition: the highest epoch that handled something."""


class Checker:
    """Follows all subscriptions.

    Lost: never handled. Out of order: handled for the first time after a later event of its stream. Redelivered:
    handled more than once. Late: noted under an epoch that was over already, by a handler that an owner which was
    frozen had begun; the epoch that it is given is how such a handler fences what it does outside.
    """

    def __init__(self, subscriptions: Sequence[str]) -> None:
        self._followed = {name: Followed() for name in subscriptions}
        self.handled = 0
        self.redelivered: list[tuple[Note, int]] = []
        """The deliveries with events that had been handled before, and how many of theirs those were."""
        self.out_of_order: list[tuple[Note, int]] = []
        """The delivery and the position of each."""
        self.late = 0

    def feed(self, note: Note) -> None:
        """Take one delivery into account."""
        followed = self._followed[note.subscription]
        seen, newest = followed.seen, followed.newest
        if note.epoch < followed.epochs.get(note.partition, 0):
            self.late += 1
        else:
            followed.epochs[note.partition] = note.epoch
        self.handled += len(note.positions)
        highest = max(note.positions)
        if highest >= len(seen):
            seen.extend(bytes(highest + 65536 - len(seen)))
        again = 0
        for position, stream in zip(note.positions, note.streams, strict=True):
            if seen[position]:
                again += 1
                continue
            seen[position] = 1
            if newest.get(stream, 0) > position:
                self.out_of_order.append((note, position))
            else:
                newest[stream] = position
        if again:
            self.redelivered.append((note, again))

    def lost(self, head: int) -> dict[str, list[int]]:
        """Return the positions up to the head that a subscription never handled."""
        found = {}
        for name, followed in self._followed.items():
            seen = followed.seen
            if seen[1 : head + 1].count(1) < head:
                found[name] = [
                    position for position in range(1, head + 1) if not seen[position : position + 1].count(1)
                ]
        return found
