"""Prints what of the reference's behaviour is covered, by which tests: ``python tests/parity/report.py``.

Exits with 1 when a behaviour is covered by no test, when a mark names an unknown number, and when a defect of the
reference has no test of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Line:
    """One behaviour and what covers it."""

    number: str
    says: str
    tests: list[str]
    improved: str
    not_applicable: str

    @property
    def status(self) -> str:
        """How we stand to it."""
        if self.not_applicable:
            return "not applicable"
        if not self.tests:
            return "UNMAPPED"
        return "improved" if self.improved or self.number.startswith("L") else "matched"

    def __str__(self) -> str:
        more = f" ({self.improved or self.not_applicable})" if self.improved or self.not_applicable else ""
        shown = (
            self.tests[0] + (f" and {len(self.tests) - 1} more" if len(self.tests) > 1 else "") if self.tests else "-"
        )
        return f"{self.number:<5} {self.status:<15} {self.says}{more}\n{'':<22}{shown}"


def collected() -> dict[str, list[str]]:
    """Ask pytest which tests claim which numbers."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "--parity", "-q", "-p", "no:randomly"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit("the tests cannot be collected:\n" + "\n".join((run.stdout + run.stderr).splitlines()[-20:]))
    found: dict[str, list[str]] = defaultdict(list)
    _, _, table = run.stdout.partition("behaviours of the reference")
    for line in table.splitlines()[1:]:
        number, _, test = line.partition(" ")
        if "::" in test:
            found[number].append(test.strip())
    return found


def lines(behaviours: Mapping[str, Mapping[str, str]], tests: Mapping[str, list[str]]) -> list[Line]:
    """Put the behaviours and the tests that claim them together."""
    return [
        Line(number, entry["says"], tests.get(number, []), entry.get("improved", ""), entry.get("not_applicable", ""))
        for number, entry in behaviours.items()
    ]


def problems(table: Sequence[Line], tests: Mapping[str, list[str]]) -> list[str]:
    """Return what is wrong with the table, in sentences; nothing when it is complete."""
    found = [f"{line.number} is covered by no test" for line in table if line.status == "UNMAPPED"]
    known = {line.number for line in table}
    found += [
        f"{number} is no behaviour, but {claims[0]} claims it"
        for number, claims in tests.items()
        if number not in known
    ]
    # A defect is answered by a test that fails on the old behaviour: one that is about this defect, and no other.
    defects = [line for line in table if line.number.startswith("L") and line.tests]
    claimed = Counter(test for line in defects for test in line.tests)
    found += [
        f"{line.number} has no test of its own: {line.tests[0]} claims other defects, too"
        for line in defects
        if not any(claimed[test] == 1 for test in line.tests)
    ]
    found += [
        f"{line.number} is said not to be applicable, but {line.tests[0]} claims it"
        for line in table
        if line.not_applicable and line.tests
    ]
    return found


def read_behaviours() -> dict[str, dict[str, str]]:
    """Return the behaviours by number."""
    return tomllib.loads((ROOT / "tests/parity/behaviours.toml").read_text(encoding="utf-8"))


def report() -> int:
    """Print the table, the totals and what is wrong; returns the exit status."""
    tests = collected()
    table = lines(read_behaviours(), tests)
    for line in table:
        print(line)
    totals = Counter(line.status for line in table)
    print("\n" + ", ".join(f"{number} {status}" for status, number in sorted(totals.items())))
    wrong = problems(table, tests)
    for problem in wrong:
        print(problem)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(report())
