"""TCP ports on the loopback interface."""

from __future__ import annotations

import errno
import socket
from typing import Final

from headwater.storage.errors import ConfigurationError

LOOPBACK: Final = "127.0.0.1"


class PortRefused(ConfigurationError):
    """A port that cannot be listened on: taken, not a port, or not for this user."""

    def __init__(self, problem: str, port: int = 0) -> None:
        super().__init__(problem)
        self.fields["port"] = self.port = port


def choose_port(port: int) -> int:
    """Return ``port``, or a free one when it is 0. Raises PortRefused when it cannot be listened on."""
    with socket.socket() as probe:
        # A port whose last connections are only waiting out their time is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OverflowError as error:
            raise PortRefused(f"{port} is not a port: name one from 1 to 65535, or 0 for a free one", port) from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortRefused(
                    f"port {port} on {LOOPBACK} is in use: name another one, or 0 for a free one", port
                ) from error
            raise PortRefused(f"cannot listen on port {port} of {LOOPBACK}: {error.strerror}", port) from error
        return int(probe.getsockname()[1])
