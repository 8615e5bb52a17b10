"""Handler actors on Ray open for themselves what their owner sends them sealed."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from headwater import NewEvent, connect
from tests.integration.host import personal
from tests.plugins.waiting import until

FOLDER = Path(personal.__file__).parent


@contextmanager
def running_on_ray(log: Path) -> Iterator[None]:
    """Run the app on a Ray node of its own."""
    command = [sys.executable, "-m", "headwater", "run", "personal:app", "--nodes", "1"]
    with log.open("wb") as out, subprocess.Popen(command, cwd=FOLDER, stdout=out, stderr=out) as running:
        try:
            yield
        finally:
            running.send_signal(signal.SIGINT)
            running.wait(timeout=60)


@pytest.mark.slow
async def test_actors_get_objects_and_nothing_of_whom_was_forgotten(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_DATABASE_URL", database_url)
    monkeypatch.setenv("HEADWATER_LEASE", "10")  # whoever loses it handles something twice
    monkeypatch.setenv("HEADWATER_MASTER_KEYS", f"first:{base64.b64encode(os.urandom(32)).decode()}")
    with psycopg.connect(database_url) as conn:
        conn.execute('CREATE TABLE "seen" ("subscription" text, "position" bigint, "saw" text, "process" int)')
    async with connect(types=personal.types, encryption=personal.encryption) as store:
        await store.append("customers", [NewEvent("Registered", {"name": name}, subject=name) for name in "ab"])
        await store.forget("b")
    query = 'SELECT "saw" FROM "seen" WHERE "subscription" = \'pool\' ORDER BY "position"'
    with running_on_ray(tmp_path / "log"), psycopg.connect(database_url, autocommit=True) as conn:
        await until(
            lambda: len(conn.execute(query).fetchall()) == 2, deadline=90, what="waiting for both to be handled"
        )
        assert conn.execute(query).fetchall() == [("Registered(name='a', country='NO')",), ("ERASED",)]
