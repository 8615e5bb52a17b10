"""How a run in parallel is divided: tests that start clusters or break processes stay together, one after another."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

ONE_AFTER_ANOTHER: Final = ("tests/distributed", "tests/chaos")
LAST: Final = "tests/benchmarks"
"""What tells least about what users rely on."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put each such test into one group, which one worker runs."""
    folders = [Path(config.rootpath, folder) for folder in ONE_AFTER_ANOTHER]
    for item in items:
        if any(folder in item.path.parents for folder in folders):
            item.add_marker(pytest.mark.xdist_group("cluster"))
