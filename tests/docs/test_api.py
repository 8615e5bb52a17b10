"""The programs that docs/api.md shows print what stands below them."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headwater import NewEvent, sync

API = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
PROGRAM = re.compile(r"^```python\n(# (\w+)\.py\n.*?)^```\n\n```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TEST = re.compile(r"^```python\n(# tests/test_paid\.py\n.*?)^```$", re.DOTALL | re.MULTILINE)
PROGRAMS = {name: (text, prints) for text, name, prints in PROGRAM.findall(API)}


def test_there_are_programs() -> None:
    assert {
        "without_await",
        "typed_events",
        "old_shapes",
        "forgetting",
        "invoices",
        "plain_invoices",
        "paid",
        "idempotent",
    } <= PROGRAMS.keys()


@pytest.fixture
def used_database_url(empty_database_url: str) -> str:
    """The URL of a store that has events already, in streams with the names that one would think of first."""
    with sync.connect(empty_database_url, migrate=True) as store:
        for stream in ("order-1", "order-2", "guest-1", "guest-2", "account-1"):
            store.append(stream, [NewEvent("OrderPaid", {"total": 10}), NewEvent("Registered", {"name": "Eve"})])
    return empty_database_url


@pytest.mark.parametrize("url", ["empty_database_url", "used_database_url"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_prints_what_stands_below_it_however_often_it_is_run(
    name: str, url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    text, prints = PROGRAMS[name]
    (tmp_path / f"{name}.py").write_text(text)
    environment = {
        **os.environ,
        "HEADWATER_DATABASE_URL": request.getfixturevalue(url),
        "HEADWATER_LEASE": "30",  # a machine that pauses is no owner that is gone
        "HEADWATER_MASTER_KEYS": f"first:{base64.b64encode(os.urandom(32)).decode()}",
    }
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, f"{name}.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert (done.stdout, done.stderr) == (prints, "")


def test_the_test_that_uses_the_plugin_passes_and_can_fail(tmp_path: Path) -> None:
    found = TEST.search(API)
    assert found is not None
    plugins = ["-p", "headwater.subscriptions.testing.plugin", "-p", "no:cacheprovider", "-p", "no:randomly"]
    for text, counts in ((found[1], "1 passed"), (found[1].replace("[10, 20]", "[10, 21]"), "1 failed")):
        (tmp_path / "test_paid.py").write_text(text)
        (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *plugins, "test_paid.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert counts in done.stdout.splitlines()[-1], done.stdout + done.stderr
