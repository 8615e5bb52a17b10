"""The command line, as a process: answers for people and programs, and bad input in one line with status 2."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from headwater import App, NewEvent, SubscriptionOptions, connect
from headwater.cluster.cli import main
from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions
from headwater.storage.options import StoreOptions

NOWHERE = "postgresql://postgres@127.0.0.1:9/nothing"


def headwater(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line: as a process in a folder, or else right here, which is much faster."""
    command = [sys.executable, "-m", "headwater", *arguments]
    if cwd is not None:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, cwd=cwd, env={**os.environ, **environment}, check=False
        )
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["headwater", *arguments]),
        mock.patch.dict(os.environ, environment),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return subprocess.CompletedProcess(command, int(ended.value.code or 0), out.getvalue(), err.getvalue())


def answer(database_url: str, *arguments: str) -> Any:
    done = headwater(*arguments, "--json", HEADWATER_DATABASE_URL=database_url)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
async def registered(database_url: str) -> str:
    """The URL of a store with ten events and a subscription that nobody runs."""
    app = App("shop")
    app.register("totals", "shop:totals", SubscriptionOptions(partitions=2))
    async with connect(database_url) as store:
        await store.append("order-1", [NewEvent("Placed") for _ in range(10)])
    async with await Client.open(ClusterOptions(store=StoreOptions(url=database_url))) as client:
        await client.register(app)
    return database_url


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--no-such-option"], "No such option"),
        (["run", "shop:app", "--warp", "9"], "No such option"),
        (["no-such-command"], "No such command"),
        (["status"], "HEADWATER_DATABASE_URL"),
        (["status", "--database-url", "http://127.0.0.1/x"], "postgresql://"),
        (["status", "--database-url", NOWHERE], "port 9"),
        (["run", "no_such_module:app", "--database-url", NOWHERE], "No module named 'no_such_module'"),
        (["run", "headwater:App", "--database-url", NOWHERE], "is not an App"),
        (["run", "broken:app"], "cannot import 'broken:app': ValueError: first line"),
        (["run", "lost:app"], "cannot import 'elsewhere:handle'"),
        (["run", "--nodes", "2", "--address", "here", "--database-url", NOWHERE], "not both"),
        (["run", "--nodes", "many"], "'--nodes'"),
        (["drop", "--database-url", NOWHERE], "--yes"),
    ],
)
def test_bad_input_is_answered_in_one_line_with_status_2(arguments: list[str], says: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise ValueError('first line\\nsecond line')")
    (tmp_path / "lost.py").write_text(
        "from headwater import App, SubscriptionOptions\n"
        "app = App('shop')\n"
        "app.register('totals', 'elsewhere:handle', SubscriptionOptions())\n"
    )
    done = headwater(*arguments, cwd=tmp_path if "run" in arguments else None)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr


def test_a_missing_schema_is_answered_in_one_line_with_status_2(empty_database_url: str) -> None:
    for arguments in (["status"], ["run"], ["subscriptions"], ["pause", "totals"]):
        done = headwater(*arguments, "--database-url", empty_database_url)
        assert done.returncode == 2, done
        assert len(done.stderr.splitlines()) == 1
        assert "headwater migrate" in done.stderr


def test_a_store_is_made_migrated_and_removed(empty_database_url: str) -> None:
    pending = answer(empty_database_url, "migrate", "--dry-run")
    assert pending
    applied = answer(empty_database_url, "migrate")
    assert [m["number"] for m in applied] == [m["number"] for m in pending]
    assert answer(empty_database_url, "migrate") == []
    assert answer(empty_database_url, "status")["head"] == 0
    assert answer(empty_database_url, "drop", "--yes") == {"removed": True}


def test_what_is_registered_can_be_seen_when_nobody_runs_it(registered: str) -> None:
    status = answer(registered, "status")
    assert (status["head"], status["hosts"], status["partitions"], status["unowned"], status["lag"]) == (
        10,
        0,
        2,
        2,
        10,
    )
    rows = answer(registered, "subscriptions")
    assert [(row["subscription"], row["partition"], row["phase"]) for row in rows] == [
        ("totals", 0, "unowned"),
        ("totals", 1, "unowned"),
    ]
    assert rows[0]["reason"] == "no host holds its lease"
    assert rows[0]["lag_seconds"] > 0
    assert answer(registered, "nodes") == []


def test_tables_are_for_people(registered: str) -> None:
    done = headwater("subscriptions", "--database-url", registered)
    assert done.returncode == 0
    assert "no host holds its lease" in done.stdout


def test_a_dry_run_asks_for_nothing(registered: str) -> None:
    told = answer(registered, "rewind", "totals", "--to", "3", "--dry-run")
    assert (told["command"], told["arguments"], told["number"], told["dry_run"]) == ("rewind", {"to": 3}, 2, True)
    assert answer(registered, "pause", "totals", "--dry-run")["number"] == 2
    assert answer(registered, "subscriptions")[0]["phase"] == "unowned"


def test_another_number_of_partitions_is_asked_for_and_shown(registered: str) -> None:
    asked = {"subscription": "totals", "partitions": 2, "to": 5}
    assert answer(registered, "repartition", "totals", "5", "--dry-run") == {**asked, "dry_run": True}
    assert answer(registered, "status")["phases"] == {"unowned": 2}
    assert answer(registered, "repartition", "totals", "5") == {**asked, "dry_run": False}
    assert answer(registered, "status")["phases"] == {"repartitioning": 2}
    assert answer(registered, "subscriptions")[0]["reason"].startswith("becomes one of 5 partitions")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["repartition", "nothing", "3"], "no subscription named 'nothing'"),
        (["repartition", "totals", "3", "--wait", "0.1"], "still has 2 partitions"),
        (["pause", "nothing"], "no subscription named 'nothing'"),
        (["parked", "nothing"], "no subscription named 'nothing'"),
        (["rewind", "totals", "--to", "yesterday"], "neither a number nor a time"),
        (["rewind", "totals", "--to", "3", "--partition", "7"], "totals/7"),
        (["move", "totals", "--to", "nowhere"], "no host is alive on a node 'nowhere'"),
        (["drain", "nowhere"], "no host is alive on 'nowhere'"),
        (["parked", "totals", "--retry", "--discard"], "not both"),
    ],
)
def test_a_command_that_means_nothing_is_refused(registered: str, arguments: list[str], says: str) -> None:
    done = headwater(*arguments, "--database-url", registered)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr
