"""What a failure leads to: another attempt, an attempt alone, or the end of the attempts.

Never waits and never draws random numbers itself.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from headwater.subscriptions.options import RetryPolicy


class Verdict(enum.Enum):
    """What follows a failed delivery."""

    AGAIN = enum.auto()
    """The same events together once more, after a delay."""
    APART = enum.auto()
    """Each of the events alone: one of them may be the culprit, and the others must not share its fate."""
    GIVE_UP = enum.auto()
    """The attempts are used up."""


def judge(policy: RetryPolicy, *, attempt: int, size: int, mendable: bool) -> Verdict:
    """Decide about a delivery of ``size`` events whose ``attempt``-th attempt failed.

    Only an event that failed alone is given up; the last attempt of a batch is therefore made event by event.
    """
    if size == 1:
        return Verdict.AGAIN if mendable and attempt < policy.attempts else Verdict.GIVE_UP
    return Verdict.AGAIN if mendable and attempt + 1 < policy.attempts else Verdict.APART


def delay(policy: RetryPolicy, failures: int, random: Callable[[], float]) -> float:
    """Return the seconds to wait after the ``failures``-th failure in a row; ``random`` gives numbers from [0, 1)."""
    longest = policy.max_delay.total_seconds()
    # The exponent is bounded, so that a long outage does not end in an overflow.
    plain = min(longest, policy.first_delay.total_seconds() * policy.factor ** min(failures - 1, 64))
    return plain * (1 - policy.jitter * random())
