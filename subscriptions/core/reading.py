"""When the next page is to be read.

Knows nothing of what the pages hold. A head that somebody announced is only a reason to look.
"""

from __future__ import annotations


class Reading:
    """The reads of one source, one at a time.

    1. An empty page is followed by another read only after a new reason: a hint, or the poll interval.
    2. A read that failed is tried again, ever more slowly, for as long as it takes.
    """

    def __init__(self, now: float, *, poll_interval: float) -> None:
        self.head = 0
        """The source's head, as the last page said."""
        self.current: int | None = None
        """The id of the read that is under way."""
        self.wanted = True
        self._ids = 0
        self._poll_interval = poll_interval
        self._poll_at = now + poll_interval
        self._failures = 0
        self._not_before = now

    def begin(self, now: float) -> int:
        """Start a read; returns its id."""
        self._ids += 1
        self.current = self._ids
        self.wanted = False
        self._poll_at = now + self._poll_interval
        return self._ids

    def ended(self, read_id: int) -> bool:
        """Note the end of a read; False when it is not the one that is waited for."""
        if read_id != self.current:
            return False
        self.current = None
        return True

    def brought(self, *, moved: bool, read_to: int, head: int) -> None:
        """Note what the read brought; ``moved`` when it came further than the one before."""
        self._failures = 0
        self.head = max(head, read_to)
        if moved and read_to < head:
            self.wanted = True

    def failed(self, now: float) -> None:
        """Note that the read brought an error."""
        self._failures += 1
        self._not_before = now + min(5.0, 0.05 * 2.0 ** min(self._failures, 16))
        self.wanted = True

    def restart(self) -> None:
        """Forget the read that is under way: the source is to be read from elsewhere."""
        self.current = None
        self.wanted = True

    def due_at(self, now: float) -> float:
        """Return when the next read should be made, if one may be: a time that has come, or the next poll."""
        if self.wanted or now >= self._poll_at:
            return self._not_before
        return max(self._poll_at, self._not_before)
