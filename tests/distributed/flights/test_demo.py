"""The demo as its users run it: a process of its own, with embedded servers and three nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugins.processes import descendants
from tests.plugins.waiting import wait_until

ROOT = Path(__file__).parents[3]
FLIGHTS = "1500"
PATIENCE = 300
"""Seconds: many times what anything here takes, because the machine may be busy with something else."""

pytestmark = pytest.mark.timeout(2 * PATIENCE)


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where the demo makes its temporary folders; the path is short, because sockets are made below it."""
    return Path(tempfile.mkdtemp(prefix="hwt-", dir=tmp_path))


def start(*arguments: str, temporary: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "examples.flights", *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(demo: subprocess.Popen[str]) -> tuple[str, str]:
    with demo:
        return demo.communicate(timeout=PATIENCE)


@pytest.fixture
def nothing_left(temporary: Path) -> Iterator[None]:
    """Fail when the demo leaves a process or a temporary folder."""
    before = set(descendants(os.getpid()))
    yield
    wait_until(lambda: not set(descendants(os.getpid())) - before, PATIENCE)
    # A server's keeper outlives a run that was interrupted for as long as it takes to remove the server's folder.
    wait_until(lambda: not list(temporary.iterdir()), 10, what="waiting until its folders have gone")


@pytest.mark.usefixtures("nothing_left")
def test_a_run_loses_nothing_although_a_node_is_killed(tmp_path: Path, temporary: Path):
    demo = start("--flights", FLIGHTS, "--json", "--out", str(tmp_path / "out"), temporary=temporary)
    out, err = finish(demo)
    assert demo.returncode == 0, err
    report = json.loads(out)
    assert report["problems"] == []
    assert (report["lost"], report["repeated"]) == (0, 0)
    assert report["appended"]["total"] == sum(report["appended"]["by_type"].values()) > 4000
    assert all(compared["equal"] and compared["compared"] for compared in report["read_models"])
    assert report["kill"]["owned"]
    assert report["kill"]["takeover_seconds"].keys() == set(report["kill"]["owned"])
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert (tmp_path / "out" / "timeline.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("moment", ["Starting", "subscriptions run"])
def test_an_interrupted_run_ends_soon_and_leaves_nothing(tmp_path: Path, temporary: Path, moment: str):
    demo = start("--out", str(tmp_path / "out"), temporary=temporary)
    assert demo.stdout is not None
    while moment not in (line := demo.stdout.readline()):
        assert line, "it ended by itself"
    demo.send_signal(signal.SIGINT)
    finish(demo)
    assert demo.returncode == 130


@pytest.mark.usefixtures("nothing_left")
def test_a_database_that_does_not_answer_is_said_in_one_line(tmp_path: Path, temporary: Path):
    url = "postgresql://nobody@127.0.0.1:1/none"
    demo = start("--database-url", url, "--out", str(tmp_path / "out"), temporary=temporary)
    _, err = finish(demo)
    assert demo.returncode == 2
    assert len(err.splitlines()) == 1
    assert "the database cannot be used" in err
