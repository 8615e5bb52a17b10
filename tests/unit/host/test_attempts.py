"""What fails is tried again ever more seldom, and is remembered for a while where it left."""

from __future__ import annotations

from headwater.cluster.attempts import Attempts
from headwater.storage.leases import PartitionKey

KEY = PartitionKey("totals", 0, 1)


def test_pauses_double_up_to_the_most_and_begin_anew_after_a_success() -> None:
    attempts = Attempts(3.0, 20.0)
    assert [attempts.failed(KEY, "shop:totals", "broken", 0.0) for _ in range(5)] == [3, 6, 12, 20, 20]
    attempts.succeeded(KEY)
    assert attempts.failed(KEY, "shop:totals", "broken", 0.0) == 3


def test_something_else_in_its_place_is_tried_at_once() -> None:
    attempts = Attempts(3.0, 20.0)
    for now in (0.0, 3.0):
        attempts.failed(KEY, "shop:totals", "broken", now)
    assert attempts.last(KEY, "shop:totals", 4.0) == ("broken", 5.0)
    assert attempts.last(KEY, "shop:totals_v2", 4.0) is None
    assert attempts.last(KEY, "shop:totals", 9.0) is None
    assert attempts.failed(KEY, "shop:totals_v2", "broken", 4.0) == 3


def test_a_failure_counts_while_it_lasts_and_for_a_while_after_it_has_left_but_not_while_it_is_tried() -> None:
    attempts = Attempts(3.0, 20.0)
    attempts.failed(KEY, "shop:totals", "broken", 0.0)
    assert attempts.reasons({KEY}, {KEY}, 100.0) == {KEY: "broken"}
    assert attempts.reasons((), {KEY}, 1.0) == {}
    assert attempts.reasons((), (), 14.0) == {KEY: "broken"}
    assert attempts.reasons((), (), 15.0) == {}
