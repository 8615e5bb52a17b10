"""Settings of hosts and supervisors that can never work are refused where they are written."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from headwater.cluster.options import INTERVALS, ClusterOptions
from headwater.storage.errors import ConfigurationError
from headwater.storage.options import StoreOptions

STORE = StoreOptions(url="postgresql://nobody@nowhere/nothing")


@pytest.mark.parametrize("name", INTERVALS)
@pytest.mark.parametrize("value", [timedelta(), timedelta(seconds=-1), timedelta(days=1), 1.0])
def test_an_interval_is_a_time_that_makes_sense(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        ClusterOptions(store=STORE, **{name: value})


@pytest.mark.parametrize("name", ["max_moves", "pool_size", "transactions"])
@pytest.mark.parametrize("value", [0, -1, 10_001, True, 1.5])
def test_a_number_is_one_that_makes_sense(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        ClusterOptions(store=STORE, **{name: value})


@pytest.mark.parametrize(("variable", "text"), [("PLAN_INTERVAL", "0"), ("MAX_MOVES", "0"), ("TRANSACTIONS", "-3")])
def test_the_environment_is_looked_at_in_the_same_way(variable: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=variable.lower()):
        ClusterOptions.read(STORE, {f"HEADWATER_{variable}": text})
