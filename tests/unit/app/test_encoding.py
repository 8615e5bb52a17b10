"""Options survive being stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater import (
    CURRENT,
    ConfigurationError,
    Delivery,
    Filter,
    InvalidArgument,
    OnFailure,
    RetryPolicy,
    SubscriptionOptions,
)
from headwater.subscriptions.encoding import decode, encode

EXTREME = SubscriptionOptions(
    source="order-1",
    where=Filter(types=("A",), categories=("order",), tags=("x", "y"), since=datetime(2026, 1, 1, tzinfo=UTC)),
    start=datetime(2025, 1, 1, tzinfo=UTC),
    delivery=Delivery.EXACTLY_ONCE,
    batch_size=7,
    partition_by="data.airport",
    partitions=4,
    selector="shop:wanted",
    mapper="shop:lift",
    read_size=11,
    handler_timeout=timedelta(seconds=1.5),
    retry=RetryPolicy(
        attempts=2,
        first_delay=timedelta(0),
        never=(InvalidArgument, ValueError),
        then=OnFailure.SKIP,
        by_error=((ConnectionError, RetryPolicy(attempts=50)), (KeyError, RetryPolicy(then=OnFailure.STOP))),
    ),
    consumers=0,
    replaces="orders",
    drain_timeout=timedelta(seconds=1),
    resources=(("GPU", 0.5), ("disk", 1.0)),
)


@pytest.mark.parametrize("options", [SubscriptionOptions(), EXTREME, SubscriptionOptions(start=CURRENT)])
def test_what_is_stored_is_what_is_read(options: SubscriptionOptions) -> None:
    assert decode(orjson.loads(orjson.dumps(encode(options)))) == options


def test_defaults_are_not_stored() -> None:
    assert encode(SubscriptionOptions(batch_size=3)) == {"batch_size": 3}


def test_what_a_newer_program_has_stored_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="another version"):
        decode({"warp_factor": 9})


@given(
    st.builds(
        SubscriptionOptions,
        start=st.one_of(st.integers(0, 2**62), st.datetimes(timezones=st.just(UTC))),
        batch_size=st.integers(1, 10**6),
        checkpoint_interval=st.timedeltas(timedelta(0), timedelta(days=1)),
        retry=st.builds(RetryPolicy, attempts=st.integers(1, 9), max_delay=st.timedeltas(timedelta(0), timedelta(9))),
    )
)
def test_any_options_survive(options: Any) -> None:
    assert decode(orjson.loads(orjson.dumps(encode(options)))) == options
