"""What lags is hot only when that lasts, and stays hot until it has been over for as long."""

from __future__ import annotations

from headwater.cluster.heat import HOT_FOR, HOT_LAG, Heat


def test_what_lags_for_long_is_hot_and_what_lags_for_a_moment_is_not() -> None:
    heat = Heat()
    assert heat.look({1: HOT_LAG, 2: HOT_LAG, 3: 0}, 0.0) == set()
    assert heat.look({1: HOT_LAG, 2: 0, 3: HOT_LAG}, HOT_FOR - 1) == set()
    assert heat.look({1: HOT_LAG, 2: HOT_LAG, 3: HOT_LAG}, HOT_FOR) == {1}
    assert heat.look({1: HOT_LAG, 2: HOT_LAG, 3: HOT_LAG}, 2 * HOT_FOR - 1) == {1, 3}


def test_what_was_hot_stays_so_until_it_has_not_lagged_for_as_long() -> None:
    heat = Heat()
    for now in (0.0, HOT_FOR):
        heat.look({1: HOT_LAG}, now)
    assert heat.look({1: 0}, HOT_FOR + 1) == {1}
    assert heat.look({1: HOT_LAG}, HOT_FOR + 2) == {1}
    assert heat.look({1: 0}, HOT_FOR + 3) == {1}
    assert heat.look({1: 0}, 2 * HOT_FOR + 2) == {1}
    assert heat.look({1: 0}, 2 * HOT_FOR + 3) == set()


def test_what_is_gone_is_not_hot() -> None:
    heat = Heat()
    for now in (0.0, HOT_FOR):
        heat.look({1: HOT_LAG}, now)
    assert heat.look({}, HOT_FOR + 1) == set()
