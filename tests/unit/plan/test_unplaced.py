"""Why nobody owns a partition: the words that an operator sees."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from headwater.cluster.plan import HostFacts
from headwater.cluster.unplaced import why_unowned
from headwater.storage.leases import PartitionKey
from headwater.storage.registry import PartitionState
from headwater.subscriptions.encoding import encode
from headwater.subscriptions.options import SubscriptionOptions

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def state(stored: dict[str, Any], wanted_owner: str | None = None) -> PartitionState:
    return PartitionState(
        key=PartitionKey("totals", 0, 1),
        options=stored,
        source="$all",
        wanted="running",
        wanted_owner=wanted_owner,
        wanted_standby=None,
        owner=None,
        standby=None,
        epoch=0,
        checkpoint=0,
        head=0,
        lag=0,
        lag_seconds=0,
        phase="new",
        reason=None,
        since=NOW,
        granted_at=None,
        checkpointed_at=None,
        delivered=0,
        redelivered=0,
        parked=0,
        parked_ever=0,
        closed=False,
    )


def host(number: int, *, draining: bool = False, labels: Any = None, resources: Any = None) -> HostFacts:
    return HostFacts(
        host=f"h{number}", node=f"node-{number}", draining=draining, labels=labels or {}, resources=resources or {}
    )


RAY = [
    host(1, labels={"zone": "a"}, resources={"CPU": 4.0, "GPU": 1.0}),
    host(2, labels={"zone": "b"}, resources={"CPU": 4.0}),
]


@pytest.mark.parametrize(
    ("options", "hosts", "says"),
    [
        ({}, [], "no host is alive"),
        ({"labels": (("zone", "c"),)}, RAY, "no node has label zone=c"),
        ({"labels": (("zone", "c"), ("disk", "ssd"))}, RAY, "no node has label zone=c or label disk=ssd"),
        ({"resources": (("GPU", 2.0),)}, RAY, "no node has 2 GPU (at most 1)"),
        ({"resources": (("TPU", 0.5),)}, RAY, "no node has 0.5 TPU"),
        (
            {"labels": (("zone", "b"),), "resources": (("GPU", 1.0),)},
            RAY,
            "no node has all of label zone=b and 1 GPU",
        ),
        (
            {"labels": (("zone", "a"),)},
            [host(3)],
            "no node has label zone=a; hosts without Ray have neither labels nor resources",
        ),
        ({}, [host(3, draining=True)], "node-3 could, and hands over all that it has"),
        ({}, RAY, "it has not been given to a node yet"),
    ],
)
def test_it_says_what_stands_in_the_way(options: dict[str, Any], hosts: list[HostFacts], says: str) -> None:
    stored = encode(SubscriptionOptions(**options))
    assert why_unowned(state(stored), hosts) == f"no host holds its lease: {says}"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "node-1 makes its handler ready"),
        ({"resources": (("GPU", 1.0),)}, "node-1 makes its handler ready, and waits for 1 GPU while others use it"),
    ],
)
def test_it_says_who_is_to_take_it(options: dict[str, Any], says: str) -> None:
    stored = encode(SubscriptionOptions(**options))
    assert why_unowned(state(stored, "h1"), RAY) == f"no host holds its lease: {says}"


def test_options_that_cannot_be_read_ask_for_nothing() -> None:
    assert why_unowned(state({"labels": "zone"}, "h1"), RAY).endswith("node-1 makes its handler ready")
