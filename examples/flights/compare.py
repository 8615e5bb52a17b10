"""A read model held against what it must show: what is missing from it and what is in it twice.

Pure: two sets of figures in, one verdict out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SHOWN = 5
"""How many differences a verdict names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How a read model compares with the input."""

    read_model: str
    promise: str
    """What its subscription promises: the delivery mode in words."""
    compared: int
    """How many figures were compared."""
    lost: int
    """Events whose effect is missing."""
    repeated: int
    """Events whose effect is there more than once (or that were never in the input)."""
    repeats_allowed: bool = False
    """Whether the promise allows ``repeated`` to be more than nothing."""
    turned_away: int = 0
    """Events that were delivered again and had no second effect, because the handler noticed."""
    differences: tuple[str, ...] = ()
    """The first differences, in words."""

    @property
    def right(self) -> bool:
        """Whether the read model shows what was promised."""
        return not self.lost and (self.repeats_allowed or not (self.repeated or self.differences))


def compare_figures(
    read_model: str,
    promise: str,
    expected: Mapping[str, Mapping[str, int]],
    actual: Mapping[str, Mapping[str, int]],
    *,
    sums: Iterable[str] = (),
    turned_away: int = 0,
) -> Comparison:
    """Compare tables of figures. ``sums`` are figures that add something other than one for each event.

    A sum that differs is a difference, but says nothing about how many events are behind it.
    """
    lost = repeated = compared = 0
    differences = []
    skipped = set(sums)
    for key in sorted(expected.keys() | actual.keys()):
        wanted, found = expected.get(key, {}), actual.get(key, {})
        for figure in sorted(wanted.keys() | found.keys()):
            compared += 1
            difference = found.get(figure, 0) - wanted.get(figure, 0)
            if difference:
                differences.append(f"{key}: {figure} is {found.get(figure, 0)}, must be {wanted.get(figure, 0)}")
                if figure not in skipped:
                    lost += max(0, -difference)
                    repeated += max(0, difference)
    return Comparison(
        read_model=read_model,
        promise=promise,
        compared=compared,
        lost=lost,
        repeated=repeated,
        turned_away=turned_away,
        differences=tuple(differences[:SHOWN]),
    )


def compare_lists(
    read_model: str, promise: str, expected: set[str], actual: Iterable[str], *, repeats_allowed: bool = False
) -> Comparison:
    """Compare a list of single effects with the set of those that had to happen."""
    counts = Counter(actual)
    missing, unknown = sorted(expected - counts.keys()), sorted(counts.keys() - expected)
    differences = [f"{key} is missing" for key in missing] + [f"{key} was not in the input" for key in unknown]
    return Comparison(
        read_model=read_model,
        promise=promise,
        compared=len(expected),
        lost=len(missing),
        repeated=sum(counts.values()) - len(expected & counts.keys()),
        repeats_allowed=repeats_allowed and not unknown,
        differences=tuple(differences[:SHOWN]),
    )
