"""The table of behaviours is complete, and would say so if it were not."""

from __future__ import annotations

from tests.parity.report import collected, lines, problems, read_behaviours

BEHAVIOURS = {
    "T1": {"says": "one"},
    "T2": {"says": "two", "not_applicable": "there is no such thing"},
    "L1": {"says": "a defect"},
    "L2": {"says": "another"},
}
COMPLETE = {"T1": ["a::one"], "L1": ["a::one", "a::first", "a::both"], "L2": ["a::second", "a::both"]}


def wrong(tests: dict[str, list[str]]) -> list[str]:
    return problems(lines(BEHAVIOURS, tests), tests)


def test_a_behaviour_without_a_test_is_found() -> None:
    assert wrong(COMPLETE) == []
    assert wrong({**COMPLETE, "T1": []}) == ["T1 is covered by no test"]
    assert wrong({"T1": ["a::one"], "L2": ["a::second"]}) == ["L1 is covered by no test"]


def test_a_mark_that_names_nothing_is_found() -> None:
    assert wrong({**COMPLETE, "T3": ["a::three"]}) == ["T3 is no behaviour, but a::three claims it"]


def test_a_defect_without_a_test_of_its_own_is_found() -> None:
    assert wrong({**COMPLETE, "L2": ["a::both"]}) == ["L2 has no test of its own: a::both claims other defects, too"]


def test_what_is_tested_is_applicable() -> None:
    assert wrong({**COMPLETE, "T2": ["a::two"]}) == ["T2 is said not to be applicable, but a::two claims it"]


def test_every_behaviour_of_the_reference_is_covered() -> None:
    tests = collected()
    assert problems(lines(read_behaviours(), tests), tests) == []
