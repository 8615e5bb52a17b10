"""What is missing and what is there twice is counted."""

from __future__ import annotations

from examples.flights.compare import compare_figures, compare_lists


def test_equal_figures_are_right_also_where_a_nothing_is_left_out():
    found = compare_figures("m", "exactly once", {"a": {"x": 3}}, {"a": {"x": 3, "y": 0}})
    assert found.right
    assert found.compared == 2


def test_missing_and_surplus_events_are_counted_apart():
    found = compare_figures("m", "exactly once", {"a": {"x": 3}, "b": {"x": 5}}, {"a": {"x": 5}, "b": {"x": 4}})
    assert (found.lost, found.repeated) == (1, 2)
    assert not found.right
    assert found.differences == ("a: x is 5, must be 3", "b: x is 4, must be 5")


def test_a_row_that_is_not_there_has_lost_all_of_its_events():
    assert compare_figures("m", "exactly once", {"a": {"x": 3}}, {}).lost == 3


def test_a_sum_that_differs_is_wrong_without_being_a_number_of_events():
    found = compare_figures("m", "exactly once", {"a": {"minutes": 30}}, {"a": {"minutes": 45}}, sums=["minutes"])
    assert not found.right
    assert (found.lost, found.repeated) == (0, 0)


def test_a_repeat_is_right_only_where_it_is_allowed():
    assert not compare_lists("m", "exactly once", {"a", "b"}, ["a", "b", "b"]).right
    allowed = compare_lists("m", "at least once", {"a", "b"}, ["a", "b", "b"], repeats_allowed=True)
    assert allowed.right
    assert allowed.repeated == 1


def test_what_is_missing_or_unknown_is_wrong_also_where_repeats_are_allowed():
    missing = compare_lists("m", "at least once", {"a", "b"}, ["a"], repeats_allowed=True)
    assert not missing.right
    assert missing.lost == 1
    assert not compare_lists("m", "at least once", {"a"}, ["a", "z"], repeats_allowed=True).right
