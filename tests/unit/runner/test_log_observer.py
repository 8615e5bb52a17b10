"""What a partition's trouble looks like in a log: told, and not over and over."""

from __future__ import annotations

import logging

import pytest

from headwater.storage.errors import StoreUnavailable
from headwater.storage.leases import PartitionKey
from headwater.subscriptions.observer import TROUBLE_AGAIN, LogObserver
from headwater.subscriptions.testing.clock import VirtualClock

KEY, OTHER = PartitionKey("totals", 0, 1), PartitionKey("totals", 1, 2)


def test_the_same_trouble_is_told_again_only_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock(100)
    observer = LogObserver(clock.monotonic)
    for _ in range(50):
        observer.trouble(KEY, "read", ValueError("broken"))
    observer.trouble(KEY, "save the checkpoint", ValueError("broken"))
    observer.trouble(OTHER, "read", ValueError("broken"))
    told = [f"totals/{number} cannot {what}: ValueError('broken')" for number, what in ((0, "read"),)]
    assert caplog.messages[:1] == told
    assert len(caplog.messages) == 3
    clock.advance(TROUBLE_AGAIN)
    observer.trouble(KEY, "read", ValueError("broken"))
    assert caplog.messages[3:] == told


@pytest.mark.parametrize(
    ("sqlstate", "warned"),
    [(None, False), ("57P03", False), ("08006", False), ("53100", True), ("25006", True)],
)
def test_a_database_that_is_away_is_no_warning_of_each_partition_and_one_that_refuses_is(
    sqlstate: str | None, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    LogObserver().trouble(KEY, "save the checkpoint", StoreUnavailable("no", sqlstate))
    assert [record.levelno >= logging.WARNING for record in caplog.records] == [warned]
