"""A run that may take only so long: what matters most begins first, and what did not run is named at the end.

``--within SECONDS`` counts from the start of each process of the run. What has begun is never cut off here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import pytest

ORDER: Final = ("tests/chaos", "tests/distributed", "", "tests/benchmarks")
"""Folders whose tests begin in this order: what is done to real processes first, what only compares figures last."""
LATE: Final = "the time was over"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--within", type=float, metavar="SECONDS", help="begin no test after so many seconds, and name those not run"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Let the time run, if there is a limit."""
    seconds = config.getoption("--within")
    if seconds is not None:
        budget = Budget(config, time.monotonic() + seconds)
        config.pluginmanager.register(budget)
        if config.pluginmanager.hasplugin("xdist"):
            config.pluginmanager.register(OfWorkers(budget))


class Budget:
    """Begins nothing when the time is over, and knows what has run."""

    def __init__(self, config: pytest.Config, end: float) -> None:
        self._config = config
        self._end = end
        self._collected: set[str] = set()
        self._ran: set[str] = set()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=_rank)  # within a folder the order stays random

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.collected([item.nodeid for item in session.items])

    def collected(self, nodeids: Sequence[str]) -> None:
        """Note what is to be run."""
        self._collected.update(nodeids)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        if time.monotonic() >= self._end:
            pytest.skip(LATE)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        late = report.skipped and LATE in str(report.longrepr)
        if report.when == "call" or (report.when == "setup" and not report.passed and not late):
            self._ran.add(report.nodeid)

    def pytest_keyboard_interrupt(self) -> None:
        # Now, and not after the workers have ended: whoever interrupts may not wait for that.
        reporter: Any = self._config.pluginmanager.getplugin("terminalreporter")
        self.pytest_terminal_summary(reporter)
        reporter.summary_stats()
        self._collected.clear()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        left = sorted(self._collected - self._ran)
        if left:
            terminalreporter.section(f"{LATE}: {len(left)} tests did not run")
            for nodeid in left:
                terminalreporter.write_line(nodeid)


class OfWorkers:
    """Where workers run the tests, these say what there is to be run."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self._budget.collected(ids)


def _rank(item: pytest.Item) -> int:
    named = (rank for rank, folder in enumerate(ORDER) if folder and item.nodeid.startswith(folder))
    return next(named, ORDER.index(""))
