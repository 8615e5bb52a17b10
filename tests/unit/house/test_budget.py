"""A run of tests that may take only so long says which of them did not run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

TESTS = """
def test_one():
    pass

def test_two():
    pass
"""


INTERRUPTED = """
def test_one():
    pass

def test_two():
    raise KeyboardInterrupt
"""


def run(folder: Path, *options: str, tests: str = TESTS) -> subprocess.CompletedProcess[str]:
    """Run two tests in a process of their own, with nothing of this project's but the plugin."""
    folder.joinpath("test_these.py").write_text(tests)
    folder.joinpath("pytest.ini").write_text("[pytest]\n")
    plugins = ["-p", "tests.plugins.budget", "-p", "no:cacheprovider", "-p", "no:valkey"]
    command = [sys.executable, "-m", "pytest", *plugins, *options, "--rootdir", str(folder), str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["in one process", "in two"])
def test_what_was_not_begun_in_time_is_named_and_fails_nobody(tmp_path: Path, workers: tuple[str, ...]) -> None:
    done = run(tmp_path, "--within", "0", *workers)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert any("the time was over: 2 tests did not run" in line for line in lines)
    assert [line for line in lines if line.startswith("test_these.py::")] == [
        "test_these.py::test_one",
        "test_these.py::test_two",
    ]
    assert "2 skipped" in lines[-1]


def test_what_was_begun_in_time_runs_and_what_an_interrupt_left_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "--within", "3600", "-p", "no:randomly")
    assert "2 passed" in done.stdout.splitlines()[-1]
    assert "did not run" not in done.stdout
    folder = tmp_path / "interrupted"
    folder.mkdir()
    done = run(folder, "--within", "3600", "-p", "no:randomly", tests=INTERRUPTED)
    lines = done.stdout.splitlines()
    assert any("1 tests did not run" in line for line in lines), done.stdout
    assert "test_these.py::test_two" in lines
    assert "1 passed" in lines[-1]
