"""PostgreSQL refuses to run as root: the ways around that, and plain users, who need none."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from headwater.storage.embedded import EmbeddedPostgres
from headwater.storage.embedded.binaries import postgres_folder
from headwater.storage.embedded.process import user_for_servers

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

USER_FOR_SERVERS = "headwater.storage.embedded.postgres.user_for_servers"

PROGRAM = """
import os, sys, psycopg
from headwater.storage.embedded import EmbeddedPostgres, EmbeddedRedis
with EmbeddedPostgres(sys.argv[1], durable=False) as server, EmbeddedRedis() as redis:
    with psycopg.connect(server.url) as conn:
        print(os.geteuid(), conn.execute("SELECT 42").fetchone()[0])
"""


def needs_nobody_to_reach(*paths: str | Path) -> None:
    """Skip the test when an ordinary user cannot execute these: below root's home they cannot."""
    for path in paths:
        if subprocess.run(["test", "-x", path], user="nobody", extra_groups=[], check=False).returncode != 0:
            pytest.skip(f"an ordinary user cannot execute {path}")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give a folder that everybody can reach: pytest's own are closed to other users."""
    folder = Path(tempfile.mkdtemp(prefix="headwater-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@ROOT_ONLY
def test_roots_server_sees_an_unprivileged_user_and_leaves_roots_files(tmp_path: Path) -> None:
    if user_for_servers() != "namespace":
        pytest.skip("this kernel gives no user namespaces to root")
    with EmbeddedPostgres(tmp_path / "data", durable=False) as server:
        assert Path(f"/proc/{server.pid}/uid_map").read_text().split() == ["1000", "0", "1"]
        assert (tmp_path / "data" / "data").stat().st_uid == 0


@ROOT_ONLY
def test_roots_server_runs_as_nobody_where_user_namespaces_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_nobody_to_reach(postgres_folder() / "postgres")
    monkeypatch.setattr(USER_FOR_SERVERS, lambda: "nobody")
    with EmbeddedPostgres(durable=False) as server, psycopg.connect(server.url) as conn:
        assert Path(f"/proc/{server.pid}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
        assert conn.execute("SELECT 42").fetchone() == (42,)


@ROOT_ONLY
def test_data_changes_hands_when_the_way_around_root_changes(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_nobody_to_reach(postgres_folder() / "postgres")
    for way in ("nobody", "namespace", "nobody"):
        if way == "namespace" and user_for_servers() != "namespace":
            pytest.skip("this kernel gives no user namespaces to root")
        with monkeypatch.context() as patch:
            patch.setattr(USER_FOR_SERVERS, lambda way=way: way)
            with EmbeddedPostgres(open_folder / "data", durable=False) as server, psycopg.connect(server.url) as conn:
                conn.execute("CREATE TABLE IF NOT EXISTS kept ()")


@ROOT_ONLY
def test_an_ordinary_user_starts_servers_too(open_folder: Path) -> None:
    needs_nobody_to_reach(os.path.realpath(sys.executable))
    (open_folder / "home").mkdir()
    os.chown(open_folder / "home", pwd.getpwnam("nobody").pw_uid, -1)
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, open_folder / "home" / "data"],
        user="nobody",
        group=pwd.getpwnam("nobody").pw_gid,
        extra_groups=[],
        cwd=open_folder / "home",
        env={**os.environ, "HOME": str(open_folder / "home"), "TMPDIR": str(open_folder / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stderr == ""
    assert finished.stdout.split() == [str(pwd.getpwnam("nobody").pw_uid), "42"]
