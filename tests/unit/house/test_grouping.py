"""What must not run beside each other does not, when tests run in parallel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

NOTING = """
import os
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range(6))
def test_noted(number):
    with Path("workers").open("a") as file:
        print(Path(__file__).parent.name, os.environ["PYTEST_XDIST_WORKER"], file=file)
"""


def test_tests_that_start_clusters_are_run_by_one_worker_and_others_by_all(tmp_path: Path) -> None:
    tmp_path.joinpath("pytest.ini").write_text("[pytest]\n")
    for folder in ("distributed", "chaos", "unit"):
        where = tmp_path / "tests" / folder
        where.mkdir(parents=True)
        (where / f"test_{folder}.py").write_text(NOTING)
    plugins = ["-p", "tests.plugins.grouping", "-p", "no:cacheprovider", "-p", "no:valkey"]
    command = [sys.executable, "-m", "pytest", *plugins, "-n", "2", "--dist", "loadgroup"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "18 passed" in done.stdout, done.stdout + done.stderr
    noted = [line.split() for line in (tmp_path / "workers").read_text().splitlines()]
    assert len({worker for folder, worker in noted if folder != "unit"}) == 1
    assert len({worker for _, worker in noted}) == 2
