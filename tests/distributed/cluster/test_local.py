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

LAUNCHER = "headwater.cluster.launcher"
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
    async with LocalCluster(1) as cluster:
        folder = cluster.folder
        # Told apart from what else runs below: a database server of the tests has processes that come and go.
        [launcher] = [each for each in descendants(os.getpid()) if LAUNCHER in each.command]
        started = {launcher.pid, *(process.pid for process in descendants(launcher.pid))}
        assert len(started) > 1
        assert folder.is_dir()
        assert cluster.nodes == ("node-1",)
        with pytest.raises(InvalidArgument, match="there is no node 'node-9'"):
            await cluster.kill_node("node-9")
    assert not started & {process.pid for process in descendants(os.getpid())}
    assert not folder.exists()
    wait_until(lambda: not _of(folder), what="waiting until all of it has gone")


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


def test_a_group_that_is_ended_while_the_cluster_starts_leaves_no_process() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as program:
        wait_until(lambda: any("gcs_server" in each.command for each in descendants(program.pid)), what="Ray's start")
        started = descendants(program.pid)
        [folder] = {Path(each.command.split()[-1]) for each in started if LAUNCHER in each.command}
        os.killpg(program.pid, signal.SIGTERM)
        program.wait(timeout=10)
    wait_until(lambda: not _of(folder), what="waiting until Ray has gone")
    wait_until(lambda: not folder.exists(), what="waiting until its files have gone")


def _of(folder: Path) -> list[str]:
    """Return what runs that was told of a folder: Ray's processes are told of it, or have it for their log."""
    return [process.command for process in processes() if str(folder) in process.command]


def _everything() -> set[int]:
    return {process.pid for process in processes()}
