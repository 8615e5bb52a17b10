"""How a run in parallel is divided: tests that start clusters or break processes stay together, one after another.

The groups are told by where a test stands. Marks would not do: with pytest 9.2, pytest-xdist 3.8 loses them.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

GROUPS: Final = {
    "tests/chaos/": "clusters",
    "tests/distributed/": "clusters",
    "tests/benchmarks/test_benchmarks.py::test_a_question_is_answered_in_a_cluster": "clusters",
    "tests/integration/host/test_replacements.py": "host replays",
    "tests/integration/host/test_replays.py": "host replays",
}
"""The groups by how the ids of their tests begin; every other test is for itself."""


class Grouped(LoadScopeScheduling):  # type: ignore[misc]  # it brings no types
    """Gives each group to one worker, the largest first."""

    def _split_scope(self, nodeid: str) -> str:
        return next((group for beginning, group in GROUPS.items() if nodeid.startswith(beginning)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Grouped | None:
    """Divide a run that asked for groups."""
    return Grouped(config, log) if config.getoption("dist") == "loadgroup" else None
