"""TCP ports on the loopback interface."""

from __future__ import annotations

import errno
import socket
from typing import Final

from headwater.storage.errors import ConfigurationError

LOOPBACK: Final = "127.0.0.1"


def choose_port(port: int) -> int:
    """Return ``port``, or a free one when it is 0. Raises ConfigurationError when it cannot be listened on."""
    with socket.socket() as probe:
        # A port whose last connections are only waiting out their time is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OverflowError as error:
            raise ConfigurationError(f"{port} is not a port: name one from 1 to 65535, or 0 for a free one") from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigurationError(
                    f"port {port} on {LOOPBACK} is in use: name another one, or 0 for a free one"
                ) from error
            raise ConfigurationError(f"cannot listen on port {port} of {LOOPBACK}: {error.strerror}") from error
        return int(probe.getsockname()[1])
