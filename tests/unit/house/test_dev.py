"""The one command of developers, dev.py: what it says, and that nothing is left of what it runs."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import dev
import pytest

from tests.plugins.processes import is_running
from tests.plugins.waiting import wait_until

ROOT = Path(__file__).parents[3]

# Starts a process in a session of its own, says who both are, and ends without it after so many seconds.
COMMAND = """
import os, subprocess, sys, time
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(os.getpid(), other.pid, flush=True)
time.sleep(float(sys.argv[1]))
os._exit(7)
"""
RUNNER = (
    f"import sys, dev; dev.REST_SECONDS = 0.1; sys.exit(dev.call([sys.executable, '-c', {COMMAND!r}, sys.argv[1]]))"
)


class Run(NamedTuple):
    """dev.py, the command that it runs, and what that one leaves behind."""

    runner: subprocess.Popen[str]
    command: int
    left_behind: int


@contextmanager
def running(seconds: float) -> Iterator[Run]:
    """Let dev.py run the command for so long."""
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(seconds)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as runner:
        assert runner.stdout is not None
        try:
            command, left_behind = (int(number) for number in runner.stdout.readline().split())
            yield Run(runner, command, left_behind)
        finally:
            runner.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands orphans over to an ancestor")
def test_what_a_command_leaves_behind_is_ended_and_its_status_kept() -> None:
    with running(0) as run:
        assert run.runner.wait(30) == 7
        assert not is_running(run.left_behind)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands orphans over to an ancestor")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_and_what_it_left_behind(number: signal.Signals) -> None:
    with running(600) as run:
        run.runner.send_signal(number)
        assert run.runner.wait(30) == 128 + number
        assert not is_running(run.command)
        assert not is_running(run.left_behind)


# The signal is there as soon as the command is, before dev.py can do anything more.
EARLY = """
import os, signal, subprocess, sys, dev

class Popen(subprocess.Popen):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        os.kill(os.getpid(), int(sys.argv[1]))

subprocess.Popen = Popen
sys.exit(dev.call([sys.executable, "-c", "import time; time.sleep(600)"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_as_soon_as_the_command_runs_is_passed_on(number: signal.Signals) -> None:
    ended = subprocess.run([sys.executable, "-c", EARLY, str(int(number))], cwd=ROOT, timeout=60, check=False)
    assert ended.returncode == 128 + number


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_the_command_does_not_outlive_dev_py() -> None:
    with running(600) as run:
        run.runner.kill()
        wait_until(lambda: not is_running(run.command))
        # What the command left is nobody's now: in real use the embedded servers and Ray end by themselves.
        os.kill(run.left_behind, signal.SIGKILL)


def test_an_unknown_command_is_answered_in_one_line_with_status_2() -> None:
    answer = subprocess.run([sys.executable, "dev.py", "fly"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert answer.stderr == "dev.py: there is no command 'fly'; ./dev.py help lists them\n"


def test_make_offers_the_commands_of_dev_py() -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    assert dev.__doc__ is not None
    described = re.findall(r"(?:^    |\s{2,})([a-z]+) {2,}[a-z]", dev.__doc__, re.MULTILINE)
    assert set(targets[1].split()) - {"help"} == set(described)


def test_children_compile_what_they_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    environment = dev.environment()
    assert "PYTHONDONTWRITEBYTECODE" not in environment
    assert environment["UV_COMPILE_BYTECODE"] == "1"
    assert environment["PIP_INDEX_URL"] == "https://index.example/simple"


def test_dev_py_parses_under_the_oldest_python_that_can_find_a_newer_one() -> None:

    ast.parse((ROOT / "dev.py").read_text(), feature_version=(3, 8))
