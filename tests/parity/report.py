"""Prints what of the reference's behaviour is covered, by which tests: ``python tests/parity/report.py``.

Exits with 1 when a behaviour that the store alone can show is covered by no test, or a mark names an unknown number.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
LAST_OF_THE_STORE: Final = 275
"""Numbers up to this one show in the store; the later ones need a running subscription."""


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
            return "open" if self.needs_a_subscription else "UNMAPPED"
        return "improved" if self.improved or self.number.startswith("L") else "matched"

    @property
    def needs_a_subscription(self) -> bool:
        """Whether the store alone cannot show it."""
        return self.number.startswith("T") and int(self.number[1:]) > LAST_OF_THE_STORE

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
        raise SystemExit(run.stdout + run.stderr)
    found: dict[str, list[str]] = defaultdict(list)
    _, _, table = run.stdout.partition("behaviours of the reference")
    for line in table.splitlines()[1:]:
        number, _, test = line.partition(" ")
        if "::" in test:
            found[number].append(test.strip())
    return found


def report() -> int:
    """Print the table and the totals; returns the exit status."""
    behaviours = tomllib.loads((ROOT / "tests/parity/behaviours.toml").read_text(encoding="utf-8"))
    tests = collected()
    lines = [
        Line(number, entry["says"], tests.pop(number, []), entry.get("improved", ""), entry.get("not_applicable", ""))
        for number, entry in behaviours.items()
    ]
    for line in lines:
        print(line)
    totals = Counter(line.status for line in lines)
    print("\n" + ", ".join(f"{number} {status}" for status, number in sorted(totals.items())))
    if tests:
        print(f"marks that name no behaviour: {', '.join(sorted(tests))}")
    return 1 if tests or totals["UNMAPPED"] else 0


if __name__ == "__main__":
    raise SystemExit(report())
