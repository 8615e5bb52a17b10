"""The durable progress: what is saved, what is being saved, and when the next save is due.

Never decides what may be delivered; the machine asks it whether a save is still missing.
"""

from __future__ import annotations

from dataclasses import replace

from headwater.storage.leases import Progress


class Ledger:
    """What is known about the saved progress of a partition.

    1. At most one save is under way.
    2. ``durable`` is what was certainly saved last.
    """

    def __init__(self, durable: Progress, *, every: int, interval: float) -> None:
        self.durable = replace(durable, delivered=0, redelivered=0)
        self.stream_id = durable.stream_id
        """The incarnation of the stream that the numbers count in, as the last read said."""
        self.saving: Progress | None = None
        self._doubtful: list[Progress] = []
        self._every = every
        self._interval = interval
        self._settled = 0
        self._since: float | None = None
        self._moved_at = float("-inf")
        self._delivered = 0
        self._redelivered = 0
        self._failures = 0
        self._not_before = 0.0

    def possible(self) -> list[Progress]:
        """Return everything that may be what is saved now: the last certain save, and those that were sent since."""
        if self.saving is None:
            return [self.durable, *self._doubtful]
        return [self.durable, *self._doubtful, self.saving]

    def count(self, events: int, *, again: bool) -> None:
        """Note that events go to the handler, for the totals."""
        if again:
            self._redelivered += events
        else:
            self._delivered += events

    def settle(self, events: int, now: float) -> None:
        """Note that events were settled, or passed over (0), since the last save."""
        self._settled += events
        if self._since is None:
            self._since = now

    def due_at(self, *, idle: bool) -> float | None:
        """Return when the settled events should be saved; None when there is nothing new.

        When nothing else is to be done, at once, as somebody may wait for it; but not within an interval of the last
        time that the checkpoint rose.
        """
        if self._since is None:
            return None
        if self._settled >= self._every:
            return max(self._since, self._not_before)
        begun = min(self._since, self._moved_at) if idle else self._since
        return max(self._since, begun + self._interval, self._not_before)

    def may_save(self, now: float) -> bool:
        """Whether a save may be sent: none is under way, and no failed one is waiting for its time."""
        return self.saving is None and now >= self._not_before

    @property
    def not_before(self) -> float:
        """Before this time no save is tried again."""
        return self._not_before

    def stamped(self, progress: Progress) -> Progress:
        """Add to a progress that is about to be saved the incarnation, and the totals since the last one."""
        return replace(
            progress,
            delivered=self._delivered,
            redelivered=self._redelivered,
            stream_id=self.stream_id,
        )

    def begin(self, progress: Progress) -> Progress:
        """Start a save; returns it with the totals."""
        self.saving = self.stamped(progress)
        self._settled = 0
        self._since = None
        return self.saving

    def saved(self, now: float) -> None:
        """Note that the save under way is durable."""
        if self.saving is not None:
            self.committed(self.saving, now)
            self.saving = None
        self._failures = 0

    def committed(self, progress: Progress, now: float) -> None:
        """Note that this progress is durable; a handler's own transaction may have saved it."""
        if progress.checkpoint != self.durable.checkpoint:
            self._moved_at = now
        self._delivered -= progress.delivered
        self._redelivered -= progress.redelivered
        self._doubtful.clear()
        self.durable = replace(progress, delivered=0, redelivered=0)

    def failed(self, now: float) -> None:
        """Note that the save under way failed: whether it is durable is unknown, and it is made again after a while."""
        if self.saving is not None and self.saving not in self._doubtful:
            self._doubtful.append(self.saving)
        self.saving = None
        self._failures += 1
        self._not_before = now + min(5.0, 0.1 * 2.0 ** min(self._failures, 16))
        if self._since is None:
            self._since = now
