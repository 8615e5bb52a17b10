"""A real Valkey (or Redis) for development, demonstrations and tests.

Keeps nothing on disk: hints are all that Headwater ever gives it.
"""

from __future__ import annotations

import socket

from headwater.storage.embedded.binaries import redis_program
from headwater.storage.embedded.folder import ServerFolder
from headwater.storage.embedded.ports import LOOPBACK
from headwater.storage.embedded.process import RunAs
from headwater.storage.embedded.server import EmbeddedServer


class EmbeddedRedis(EmbeddedServer):
    """A Valkey server of this program's own. ``port`` 0 takes a free one."""

    kind = "redis"
    name = "Valkey"
    start_seconds = 20.0

    def __init__(self, port: int = 0) -> None:
        super().__init__(None, port)

    @property
    def url(self) -> str:
        """How to connect, to database 0."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def _prepare(self, folder: ServerFolder) -> RunAs:  # noqa: ARG002 - it needs nothing there
        return "same"

    def _command(self, folder: ServerFolder, port: int) -> list[str]:
        listening = ["--port", str(port), "--bind", LOOPBACK]
        keeping_nothing = ["--save", "", "--appendonly", "no", "--dir", str(folder.path)]
        return [str(redis_program()), *listening, *keeping_nothing, "--daemonize", "no"]

    def _answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
