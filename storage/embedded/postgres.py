"""A real PostgreSQL for development, demonstrations and tests.

Asks for a password even on loopback: on a shared machine nobody else gets in.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psycopg

from headwater.storage.embedded.binaries import major_version, postgres_folder
from headwater.storage.embedded.folder import ServerFolder
from headwater.storage.embedded.ports import LOOPBACK
from headwater.storage.embedded.process import RunAs, user_for_servers
from headwater.storage.embedded.server import EmbeddedServer
from headwater.storage.errors import ConfigurationError

SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": LOOPBACK,
    # A TCP port is all that is needed, and a socket's path may be too long for the system.
    "unix_socket_directories": "",
    "logging_collector": "off",
    "timezone": "UTC",
    # Tests in parallel, handler pools and several nodes on one machine are many sessions, nearly all of them idle.
    "max_connections": "250",
    "shared_buffers": "256MB",
    # A catch-up over a large store must not wait for checkpoints.
    "max_wal_size": "4GB",
}
"""How a server on a developer's machine is set up; an :class:`EmbeddedPostgres` may override each."""


class EmbeddedPostgres(EmbeddedServer):
    """A PostgreSQL server of this program's own.

    ``data_dir`` keeps the data from one start to the next; None throws it away. ``port`` 0 takes a free one.
    ``settings`` are server settings by name. ``durable=False`` trades safety for speed: the data does not survive a
    crash of the machine, which is right for tests and for nothing else.
    """

    kind = "postgres"
    name = "PostgreSQL"
    # Long, because a crash before may have left much to recover.
    start_seconds = 60.0
    stop_signal = "SIGINT"

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        port: int = 0,
        *,
        settings: Mapping[str, str] | None = None,
        durable: bool = True,
    ) -> None:
        super().__init__(data_dir, port)
        self._settings = {**SETTINGS, **({} if durable else {"fsync": "off"}), **(settings or {})}
        self._password = ""

    @property
    def url(self) -> str:
        """How to connect as the superuser, to the database ``postgres``."""
        return f"postgresql://postgres:{self._password}@{LOOPBACK}:{self.port}/postgres"

    def _prepare(self, folder: ServerFolder) -> RunAs:
        binaries, run_as, data = postgres_folder(), user_for_servers(), folder.path / "data"
        if data.exists():
            _refuse_other_version(folder, major_version(binaries))
        else:
            self._make_data(folder, binaries, run_as)
        _hand_over(folder, data, run_as)
        self._password = (folder.path / "password").read_text()
        return run_as

    def _make_data(self, folder: ServerFolder, binaries: Path, run_as: RunAs) -> None:
        """Make the data. It appears whole or not at all: it is made beside its place."""
        data, making, password = folder.path / "data", folder.path / "making", folder.path / "password"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(18))
        _hand_over(folder, making, run_as)
        _hand_over(folder, password, run_as)
        command = [str(binaries / "initdb"), "-D", str(making), "-U", "postgres", "--encoding=UTF8", "--locale=C"]
        command += ["--auth=scram-sha-256", f"--pwfile={password}", "--no-instructions"]
        if folder.throw_away or self._settings.get("fsync") == "off":
            command.append("--no-sync")
        initdb = self._spawn(command, folder, run_as)
        try:
            status = initdb.wait(self.start_seconds)
            if status != 0:
                raise ConfigurationError(f"initdb could not make {data} (status {status}){initdb.log_tail()}")
        finally:
            initdb.stop()
        making.rename(data)

    def _command(self, folder: ServerFolder, port: int) -> list[str]:
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        return [str(postgres_folder() / "postgres"), "-D", str(folder.path / "data"), "-p", str(port), *settings]

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


def _hand_over(folder: ServerFolder, path: Path, run_as: RunAs) -> None:
    """Let the user that the server runs as own a part of the folder. Only root's servers run as somebody else."""
    if run_as == "nobody":
        folder.path.chmod(0o711)
    if os.geteuid() == 0:
        folder.give_to("nobody" if run_as == "nobody" else "root", path)


def _refuse_other_version(folder: ServerFolder, version: int) -> None:
    found = (folder.path / "data" / "PG_VERSION").read_text().strip()
    if found != str(version):
        raise ConfigurationError(
            f"the data in {folder.path} was made by PostgreSQL {found}, and this is PostgreSQL {version}: "
            "name another folder, or use that version"
        )
