"""The surroundings of a test run: the same for everybody, whatever the developer has set."""

from __future__ import annotations

import os
import resource
from typing import Final

import pytest

KEPT: Final = ("HEADWATER_TEST_DATABASE_URL", "HEADWATER_TEST_REDIS_URL")
WANTED_FILES: Final = 8192
"""Open files: each node of a Ray cluster, and each session, takes many; some systems allow 256 by default."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Forget the developer's own settings and raise the limit of open files."""
    for name in [name for name in os.environ if name.startswith("HEADWATER_") and name not in KEPT]:
        del os.environ[name]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
