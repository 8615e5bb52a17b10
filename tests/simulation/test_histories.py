"""Random histories of failure keep every invariant, and the invariants do catch defects."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headwater.subscriptions.testing.invariants import BrokenInvariant
from headwater.subscriptions.testing.simulator import History, simulate

from .mutants import MUTANTS

HISTORIES = 300
"""In the default suite; the slow test plays ten thousand."""

CHUNKS = 20


@pytest.mark.parametrize("first", range(0, HISTORIES, 50))
def test_no_history_breaks_an_invariant(first: int) -> None:
    histories = [simulate(seed) for seed in range(first, first + 50)]
    assert all(history.steps >= 1000 for history in histories)
    assert sum(history.crashes for history in histories) > 0
    assert sum(history.grants for history in histories) > len(histories)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_history_of_ten_thousand_breaks_an_invariant(chunk: int) -> None:
    size = 10_000 // CHUNKS
    for seed in range(1000 + chunk * size, 1000 + (chunk + 1) * size):
        assert simulate(seed).steps >= 1000


def test_a_seed_plays_the_same_history_again() -> None:
    def play() -> History:
        return simulate(42)

    assert play() == play()


@pytest.mark.parametrize("plant", MUTANTS, ids=lambda plant: plant.__name__)
def test_a_planted_defect_is_caught_within_two_hundred_histories(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(BrokenInvariant, match=r"seed \d+"):
        _play(range(200))


def _play(seeds: range) -> None:
    for seed in seeds:
        simulate(seed)
