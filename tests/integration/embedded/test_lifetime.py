"""Servers end with the program that started them, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from headwater.storage.embedded import EmbeddedRedis
from tests.plugins.processes import is_listening, is_running, processes
from tests.plugins.waiting import wait_until

PROGRAM = """
import signal, sys
from headwater.storage.embedded import EmbeddedPostgres, EmbeddedRedis
signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background may have left it ignored
postgres, redis = EmbeddedPostgres(durable=False).start(), EmbeddedRedis().start()
print(postgres.pid, redis.pid, postgres.port, redis.port, flush=True)
sys.stdin.read()
"""


class Started(NamedTuple):
    """A program that runs two servers and waits for the end of its standard input."""

    program: subprocess.Popen[str]
    pids: list[int]
    ports: list[int]


@contextmanager
def program_with_servers(folder: Path) -> Iterator[Started]:
    """Start the program; its throw-away data comes to stand in ``folder``."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as program:
        assert program.stdout is not None
        try:
            numbers = [int(number) for number in program.stdout.readline().split()]
            yield Started(program, numbers[:2], numbers[2:])
        finally:
            program.kill()


def assert_all_gone(started: Started, folder: Path) -> None:
    wait_until(lambda: not any(map(is_running, started.pids)), what="the servers have ended")
    wait_until(lambda: not any(map(is_listening, started.ports)), what="their ports are free")
    wait_until(lambda: list(folder.iterdir()) == [], what="their data is removed")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_servers_end_when_their_program_is_ended_by_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with program_with_servers(tmp_path) as started:
        assert all(map(is_running, started.pids))
        started.program.send_signal(number)
        assert_all_gone(started, tmp_path)


def test_servers_end_with_a_program_that_forgets_to_stop_them(tmp_path: Path) -> None:
    with program_with_servers(tmp_path) as started:
        assert started.program.stdin is not None
        started.program.stdin.close()
        assert started.program.wait(30) == 0
        assert_all_gone(started, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can signal the child of a process that was killed")
def test_a_server_ends_when_its_keeper_is_killed() -> None:
    with EmbeddedRedis() as server:
        pid = server.pid
        keeper = next(process.parent for process in processes() if process.pid == pid)
        os.kill(keeper, signal.SIGKILL)
        wait_until(lambda: not is_running(pid))


def test_data_that_nobody_could_remove_is_removed_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / "headwater-redis-left"
    left.mkdir()
    (left / "lock").touch()
    somebody_elses = tmp_path / "headwater-redis-without-a-lock"
    somebody_elses.mkdir()
    with EmbeddedRedis() as first, EmbeddedRedis() as second:
        assert not left.exists()
        assert first.running
        assert second.running
    assert list(tmp_path.iterdir()) == [somebody_elses]
