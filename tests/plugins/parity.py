"""Which test covers which numbered behaviour of the reference: ``pytest --parity --collect-only`` prints it."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--parity", action="store_true", help="print the tests by the numbers of the behaviours they cover"
    )


def covered(items: list[pytest.Item]) -> dict[str, list[str]]:
    """Return the tests by the numbers in their ``parity`` marks, in the order of the numbers."""
    found: dict[str, set[str]] = defaultdict(set)
    for item in items:
        for mark in item.iter_markers("parity"):
            for number in mark.args:
                found[str(number)].add(item.nodeid.partition("[")[0])
    order = sorted(found, key=lambda number: (re.sub(r"\d", "", number), int(re.sub(r"\D", "", number) or 0)))
    return {number: sorted(found[number]) for number in order}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    if config.getoption("--parity"):
        terminalreporter.section("behaviours of the reference, and the tests that cover them")
        for number, tests in covered(config.stash[ITEMS]).items():
            for test in tests:
                terminalreporter.write_line(f"{number:<6} {test}")


ITEMS = pytest.StashKey[list[pytest.Item]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep what was collected."""
    session.config.stash[ITEMS] = list(session.items)
