"""Judges what handlers noted: what was lost, out of order, or delivered again. ``owners`` judges who handled it.

Pure: it is fed notes in the order of their times, and told at the end how far the store goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from tests.chaos.journal import Note
from tests.chaos.owners import Owners


@dataclass(slots=True)
class Followed:
    """What is known of one subscription."""

    seen: bytearray = field(default_factory=bytearray)
    """One byte for each position: whether it was handled."""
    newest: dict[int, int] = field(default_factory=dict)
    """By stream: the highest position handled so far."""


class Checker:
    """Follows all subscriptions.

    Lost: never handled. Out of order: handled for the first time after a later event of its stream. Redelivered:
    handled more than once, of which a takeover may bring as many as were in flight or not saved.
    """

    def __init__(self, subscriptions: Sequence[str], with_actors: Collection[str] = ()) -> None:
        self._followed = {name: Followed() for name in subscriptions}
        self.owners = Owners(with_actors)
        self.handled = 0
        self.redelivered: list[tuple[Note, int]] = []
        """The deliveries with events that had been handled before, and how many of theirs those were."""
        self.out_of_order: list[tuple[Note, int]] = []
        """The delivery and the position of each."""
        self.again: Counter[tuple[tuple[str, int], int]] = Counter()
        """By partition and epoch: how many events were handled again."""

    def feed(self, note: Note) -> None:
        """Take one delivery into account."""
        followed = self._followed[note.subscription]
        seen, newest = followed.seen, followed.newest
        self.owners.feed(note)
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
            self.again[note.owned, note.epoch] += again

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
