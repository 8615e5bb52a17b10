"""The servers that are broken: a Postgres whose disk can be filled up and whose clock can be stepped, and a Valkey."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import psycopg

from headwater.storage.embedded import EmbeddedPostgres, EmbeddedRedis
from tests.chaos.clocks import Clocks
from tests.chaos.processes import gone
from tests.plugins.waiting import wait_until

PREFIX: Final = "headwater-chaos-"
SERVER_CLOCK: Final = "postgres"
DISK: Final = "8g"
"""The most that the data may take; only what is there takes memory."""
SETTINGS: Final[Mapping[str, str]] = {
    # A crash is recovered from in a moment, because little has to be read again.
    "max_wal_size": "192MB",
    "checkpoint_timeout": "30s",
    "shared_buffers": "256MB",
    # What a cut cable leaves behind is noticed.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "2",
}


class Servers:
    """Use it as a context manager; everything is below one folder, which goes with it."""

    def __init__(self) -> None:
        sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/tmp"))
        self._stack = ExitStack()
        self.clocks = Clocks.make(self.folder)
        self.small_disk = False
        """Whether the data is on a disk of its own, which can be filled up without harm to anybody else."""
        self.postgres = EmbeddedPostgres(self.folder / "data", settings=SETTINGS)
        self.redis = EmbeddedRedis()

    def __enter__(self) -> Self:
        try:
            self._mount()
            self._start_first()
            self.redis.start()
            self._stack.callback(self._stop)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._remove()

    @property
    def url(self) -> str:
        """How to connect as the superuser, directly."""
        return self.postgres.url

    def database(self, name: str) -> str:
        """Make a database; returns its URL."""
        with self.connect() as conn:
            conn.execute(f'CREATE DATABASE "{name}"')  # a name of this program's own
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()

    def connect(self, url: str | None = None) -> psycopg.Connection[Any]:
        """Open a connection that no fault aims at: it may also write while the server answers read-only."""
        conn = psycopg.connect(url or self.url, autocommit=True, application_name="chaos control", connect_timeout=5)
        conn.execute("SET default_transaction_read_only = off")
        return conn

    def answers(self) -> bool:
        """Whether Postgres takes connections."""
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def start_postgres(self) -> None:
        """Start Postgres again on the same port; returns when it answers."""
        with self._own_clock():
            self.postgres.start()

    def signal_postgres(self, number: signal.Signals) -> None:
        """Send the server a signal: SIGINT ends it in good order and at once, SIGQUIT as a crash would."""
        os.kill(self.postgres.pid, number)

    def fill_disk(self) -> None:
        """Leave no room on the disk of the data: it shrinks to what is on it, and a little that is filled at once."""
        wait_until(self._shrink, what="waiting until the disk shrinks")

    def free_disk(self) -> None:
        """Give the room back."""
        self._resize(DISK)

    def _shrink(self) -> bool:
        """Try it; what is on the disk may have grown in between."""
        used = shutil.disk_usage(self.folder / "data").used
        return self._resize(f"{used // 1024 + 128}k")

    def _resize(self, size: str) -> bool:
        command = ["mount", "-o", f"remount,size={size}", str(self.folder / "data")]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _mount(self) -> None:
        """Put the data on a disk of its own, in memory, where this process may do that."""
        data = self.folder / "data"
        data.mkdir()
        if sys.platform != "linux" or os.geteuid() != 0:
            return
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "headwater-chaos", str(data)]
        self.small_disk = subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _start_first(self) -> None:
        """Start once for the data to be made. Its log of changes goes elsewhere: a server ends when that is full."""
        with self._own_clock():
            self.postgres.start()
        if self.small_disk:
            self.postgres.stop()
            log = self.folder / "data" / "data" / "pg_wal"
            shutil.move(log, self.folder / "wal")
            log.symlink_to(self.folder / "wal")
            self.start_postgres()

    @contextmanager
    def _own_clock(self) -> Iterator[None]:
        """Let what is started meanwhile have the server's clock."""
        wanted = self.clocks.environment(SERVER_CLOCK) if self.clocks else {}
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def _stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.redis.running:
                os.kill(self.redis.pid, signal.SIGCONT)
        self.redis.stop()
        self.postgres.stop()

    def _remove(self) -> None:
        self.redis.stop()
        self.postgres.stop()
        _remove(self.folder)


def sweep() -> None:
    """Remove what a run that was killed has left: its folder, and the disk in it."""
    for folder in Path("/tmp").glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdecimal() and gone(int(owner)):
            _remove(folder)


def _remove(folder: Path) -> None:
    if (folder / "data").is_mount():
        subprocess.run(["umount", "--lazy", str(folder / "data")], capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)
