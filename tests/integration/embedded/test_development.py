"""The servers of a developer: there until interrupted, with the same data and addresses the next time."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from headwater.storage.embedded import development_servers
from headwater.storage.embedded.ports import choose_port
from headwater.storage.errors import ConfigurationError
from tests.plugins.processes import is_listening

PROGRAM = (
    "import sys; from headwater.storage.embedded import serve; serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))"
)

SHOW = "import os; print(os.environ['HEADWATER_DATABASE_URL'], os.environ['HEADWATER_REDIS_URL'])"
"""What a program sees that is started in a terminal into which the first two lines were pasted."""


@contextmanager
def serving(folder: Path, *ports: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a developer's servers in a process; gives it and the database's URL."""
    command = [sys.executable, "-u", "-c", PROGRAM, str(folder), *map(str, ports)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        try:
            pasted = program.stdout.readline() + program.stdout.readline()
            shell = [shutil.which("sh") or "sh", "-c", f"{pasted}exec {shlex.join([sys.executable, '-c', SHOW])}"]
            url, redis = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.split()
            assert redis == f"redis://127.0.0.1:{ports[1]}/0"
            yield program, url
        finally:
            program.kill()


def test_a_signal_ends_them_and_the_next_start_finds_everything_again(tmp_path: Path) -> None:
    ports, urls = (choose_port(0), choose_port(0)), set()
    for number in (signal.SIGINT, signal.SIGTERM):
        with serving(tmp_path / "kept", *ports) as (program, url):
            with psycopg.connect(url) as conn:
                conn.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 1 AS n")
                assert conn.execute("SELECT count(*) FROM kept").fetchone() == (1,)
            urls.add(url)
            program.send_signal(number)
            assert program.wait(30) == 0
            assert not any(map(is_listening, ports))
    assert len(urls) == 1
    assert (tmp_path / "kept" / ".gitignore").read_text() == "*\n"


def test_when_one_cannot_start_the_other_does_not_go_on(tmp_path: Path) -> None:
    port = choose_port(0)
    with (
        pytest.raises(ConfigurationError, match="99999 is not a port"),
        development_servers(tmp_path, port, 99999),
    ):
        pass
    assert not is_listening(port)
