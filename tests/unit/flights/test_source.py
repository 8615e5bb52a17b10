"""The sample of the year."""

from __future__ import annotations

import itertools

import pytest

from examples.flights.source import TOTAL, rows


def test_a_sample_has_exactly_the_size_asked_for_and_covers_every_month():
    sample = list(rows(500, seed=1))
    assert len(sample) == 500
    assert {int(row.month) for row in sample} == set(range(1, 13))


def test_the_days_of_a_sample_come_in_order():
    days = [(int(row.month), int(row.day)) for row in rows(2000, seed=2)]
    assert days == sorted(days)


def test_the_same_seed_gives_the_same_sample_and_another_seed_another_one():
    first = list(itertools.islice(rows(1000, seed=3), 100))
    assert first == list(itertools.islice(rows(1000, seed=3), 100))
    assert first != list(itertools.islice(rows(1000, seed=4), 100))


@pytest.mark.slow
def test_the_whole_year_is_there():
    assert sum(1 for _ in rows()) == TOTAL
