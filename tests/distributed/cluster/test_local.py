"""A cluster on this machine comes and goes without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headwater import InvalidArgument
from headwater.cluster.local import LocalCluster
from tests.plugins.processes import descendants, processes
from tests.plugins.waiting import wait_until

PROGRAM = """
import asyncio
from headwater.cluster.local import LocalCluster

async def main():
    async with LocalCluster(1) as cluster:
        print(cluster.folder, flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


async def test_leaving_a_cluster_leaves_nothing() -> None:
    before = set(descendants(os.getpid()))
    async with LocalCluster(1) as cluster:
        folder = cluster.folder
        assert folder.is_dir()
        assert cluster.nodes == ("node-1",)
        with pytest.raises(InvalidArgument, match="there is no node 'node-9'"):
            await cluster.kill_node("node-9")
    assert set(descendants(os.getpid())) <= before
    assert not folder.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_program_that_ends_in_whatever_way_leaves_no_process(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as program:
        assert program.stdout is not None
        folder = Path(program.stdout.readline().decode().strip())
        assert folder.is_dir()
        started = {process.pid for process in descendants(program.pid)}
        assert started
        program.send_signal(number)
        program.wait(timeout=10)
    wait_until(lambda: not started & _everything(), deadline=10, what="waiting until Ray has gone")
    wait_until(lambda: not folder.exists(), deadline=10, what="waiting until its files have gone")


def _everything() -> set[int]:
    return {process.pid for process in processes()}
