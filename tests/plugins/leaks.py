"""What a test run must not leave: child processes, and threads that would keep the program from ending."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Final

import pytest

from tests.plugins.processes import descendants
from tests.plugins.waiting import wait_until

# Python's own helpers of multiprocessing live as long as their program, and end with it.
EXPECTED: Final = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


def left_running() -> list[str]:
    """Return what this process has started and has not ended: processes, and threads that are no daemons."""
    running = [
        f"process {process.pid}: {process.command}"
        for process in descendants(os.getpid())
        if not any(name in process.command for name in EXPECTED)
    ]
    threads = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    return running + [f"thread {thread.name}" for thread in threads if not thread.daemon]


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    """Fail when something is left after the last test, the servers of the run included.

    Set up before every other fixture of the session, so that it is torn down after all of them.
    """
    before = left_running()
    yield
    wait_until(lambda: not set(left_running()) - set(before), what=f"waiting for what tests left: {left_running()}")
