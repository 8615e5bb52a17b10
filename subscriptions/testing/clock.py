"""A clock that moves only when it is told to."""

from __future__ import annotations


class VirtualClock:
    """Time as a test wants it, in seconds."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def monotonic(self) -> float:
        """Return the time."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.advance_to(self._now + seconds)

    def advance_to(self, moment: float) -> None:
        """Let time pass until ``moment``; it never goes back."""
        self._now = max(self._now, moment)

    def __repr__(self) -> str:
        return f"<VirtualClock {self._now:.3f}>"
