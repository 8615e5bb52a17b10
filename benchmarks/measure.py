"""Measuring candidates in turn: what one round gives, what must hold of it, and what follows from all rounds.

Knows nothing of any candidate: it calls them, one after another, so that whatever disturbs the machine disturbs all.
"""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

RATE = "events/s"
P50, P99 = "p50 ms", "p99 ms"


@dataclass(frozen=True, slots=True)
class Sample:
    """What a candidate says of one round, and what was found when it was checked."""

    events: int
    """How many events the candidate says it stored, read or handled."""
    counted: int
    """How many there are, counted where they ended up."""
    seconds: float
    latencies: Sequence[float] = ()
    """How long each call took, in seconds."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """Further figures, by name and unit."""

    def figures(self) -> dict[str, float]:
        """Return the figures of the round by name."""
        figures = {RATE: self.events / self.seconds} if self.events else {}
        if self.latencies:
            figures[P50] = percentile(self.latencies, 50) * 1000
            figures[P99] = percentile(self.latencies, 99) * 1000
        return {**figures, **self.facts}


Candidate: TypeAlias = Callable[[], Awaitable[Sample]]
"""Runs one round."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should be: a candidate's own, or its ratio to another candidate's of the same round."""

    of: str
    to: str | None = None
    figure: str = RATE
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One situation, and everybody who is measured in it."""

    name: str
    candidates: Mapping[str, Candidate]
    parameters: Mapping[str, int] = field(default_factory=dict)
    targets: Sequence[Target] = ()
    """What is wanted; ratios without a bound are shown too."""
    rounds: int | None = None
    """So many rounds, none before them, whatever was asked for: when one takes very long."""


class WrongCount(AssertionError):
    """A candidate did not do what it says: its figures mean nothing."""


async def measure(case: Case, rounds: int, warm_up: bool = True) -> dict[str, Any]:
    """Run every candidate in each round, in the same order; returns what goes into the results."""
    taken: dict[str, list[Sample]] = {name: [] for name in case.candidates}
    first, rounds = (0, case.rounds) if case.rounds is not None else (-1 if warm_up else 0, rounds)
    for number in range(first, rounds):
        for name, candidate in case.candidates.items():
            gc.collect()
            sample = await candidate()
            if sample.events != sample.counted:
                raise WrongCount(f"{case.name}: {name} says {sample.events} events, there are {sample.counted}")
            if number >= 0:
                taken[name].append(sample)
    figures = {name: [sample.figures() for sample in samples] for name, samples in taken.items()}
    return {
        "case": case.name,
        "parameters": dict(case.parameters),
        "candidates": [_candidate(name, samples, figures[name]) for name, samples in taken.items()],
        "targets": [_target(target, figures) for target in case.targets],
    }


def _candidate(name: str, samples: Sequence[Sample], figures: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    rounds = [
        {"events": sample.events, "counted": sample.counted, "seconds": sample.seconds, **row}
        for sample, row in zip(samples, figures, strict=True)
    ]
    return {
        "candidate": name,
        "figures": {key: spread([row[key] for row in figures]) for key in (figures[0] if figures else ())},
        "rounds": rounds,
    }


def _target(target: Target, figures: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    values = [row[target.figure] for row in figures[target.of]]
    if target.to is not None:
        values = [mine / theirs[target.figure] for mine, theirs in zip(values, figures[target.to], strict=True)]
    found = spread(values)
    met = None
    if target.at_least is not None:
        met = found["median"] >= target.at_least
    elif target.at_most is not None:
        met = found["median"] <= target.at_most
    return {
        "of": target.of,
        "to": target.to,
        "figure": target.figure,
        "at_least": target.at_least,
        "at_most": target.at_most,
        "rounds": values,
        **found,
        "met": met,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the lowest and the highest of some rounds' figures."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that ``percent`` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
