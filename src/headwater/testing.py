"""The test kit, for the tests of programs that use Headwater; nothing in production imports it.

::

    from headwater.testing import MemoryRuntime

    async with MemoryRuntime(app) as runtime:
        await runtime.append("order-1", NewEvent("OrderPlaced", {"total": 42}))
        await runtime.caught_up()

The pytest fixture is in a plugin of its own, ``headwater.subscriptions.testing.plugin``: nothing here needs pytest.
"""

from __future__ import annotations

from headwater.subscriptions.testing.builders import recorded
from headwater.subscriptions.testing.clock import VirtualClock
from headwater.subscriptions.testing.invariants import BrokenInvariant
from headwater.subscriptions.testing.runtime import MemoryRuntime, NotCaughtUp
from headwater.subscriptions.testing.scenario import Happened, Outcome, Scenario
from headwater.subscriptions.testing.simulator import History, simulate
from headwater.subscriptions.testing.world import Weather

__all__ = [
    "BrokenInvariant",
    "Happened",
    "History",
    "MemoryRuntime",
    "NotCaughtUp",
    "Outcome",
    "Scenario",
    "VirtualClock",
    "Weather",
    "recorded",
    "simulate",
]
