"""Processes that end with others."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.plugins.processes import is_running
from tests.plugins.waiting import wait_until

CHILD = """
import asyncio, os, sys
from headwater.cluster.processes import end_with_parent

if sys.argv[1:] == ["looks"] and hasattr(os, "pidfd_open"):
    del os.pidfd_open

async def main():
    task = asyncio.create_task(end_with_parent())
    await asyncio.sleep(0)
    print("watching", flush=True)
    await task

asyncio.run(main())
"""
PARENT = """
import subprocess, sys

child = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], stdout=subprocess.PIPE, text=True)
print(child.pid, child.stdout.readline(), flush=True)
child.wait()
"""


@pytest.mark.parametrize("how", ["is told", "looks"])
def test_a_process_that_watches_its_parent_ends_with_it_however_that_ended(how: str) -> None:
    command = [sys.executable, "-c", PARENT, CHILD, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, watching = parent.stdout.readline().split()
        assert watching == "watching"
        assert is_running(int(pid))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_until(lambda: not is_running(int(pid)), what="waiting for the child to end")
