"""The phase that a partition is in, why, and since when.

Knows the table of phases and what is wrong outside; decides nothing else.
"""

from __future__ import annotations

from headwater.subscriptions.core.phases import Cause, Phase, after


class Condition:
    """What operators see.

    1. STUCK exactly while running and something is wrong outside; the reason is the oldest thing that is.
    2. ``since`` moves only when the phase or the reason does.
    """

    def __init__(self) -> None:
        self.phase = Phase.NEW
        self.reason: str | None = None
        self.since = 0.0
        self.changed = False
        """Whether the phase or the reason moved since this was last set to False."""
        self._troubles: dict[str, str] = {}

    def become(self, cause: Cause, reason: str | None, now: float) -> None:
        """Follow the table; a cause that it does not list for this phase changes nothing."""
        phase = after(self.phase, cause)
        if phase is not self.phase:
            self._set(phase, reason, now)
            if phase is Phase.RUNNING:
                self._follow_troubles(now)

    def trouble(self, what: str, reason: str, now: float) -> None:
        """Note that something outside does not work."""
        self._troubles[what] = reason
        self._follow_troubles(now)

    def relieve(self, what: str, now: float) -> None:
        """Note that it works (again)."""
        if self._troubles.pop(what, None) is not None:
            self._follow_troubles(now)

    def _follow_troubles(self, now: float) -> None:
        reason = next(iter(self._troubles.values()), None)
        if reason is None:
            self.become(Cause.RELIEF, None, now)
        elif self.phase is Phase.STUCK:
            if reason != self.reason:
                self._set(Phase.STUCK, reason, now)
        else:
            self.become(Cause.TROUBLE, reason, now)

    def _set(self, phase: Phase, reason: str | None, now: float) -> None:
        self.phase, self.reason, self.since = phase, reason, now
        self.changed = True

    def __repr__(self) -> str:
        return f"<{self.phase.value} since={self.since} reason={self.reason!r}>"
