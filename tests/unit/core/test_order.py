"""The order in which what was read is handed out when nothing is partitioned."""

from __future__ import annotations

from headwater.subscriptions.core.lanes import InOrder


def test_a_batch_is_sorted_whenever_its_events_came_to_be_free() -> None:
    order = InOrder()
    order.add((20, 21), None)
    order.add((5,), None)  # it was kept behind a parked event until now
    assert order.take(10) == ([5, 20, 21], ())
