"""One server process under its keeper: started, watched, stopped, with the end of its log in every error.

Knows nothing of any particular server; never waits without a deadline.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

from headwater.storage.errors import ConfigurationError

RunAs: TypeAlias = Literal["same", "namespace", "nobody"]
"""Under which user a server runs: this process' own, an unprivileged face of root's, or ``nobody``."""

KEEPER: Final = Path(__file__).with_name("keeper.py")
LOG_TAIL_LINES: Final = 12


def keeper_command(*arguments: str) -> list[str]:
    """Return the command line of a keeper, isolated from the caller's environment and site-packages."""
    return [sys.executable, "-I", "-S", str(KEEPER), *arguments]


def user_for_servers() -> RunAs:
    """Choose the user that a server which refuses root can run under."""
    if os.geteuid() != 0:
        return "same"
    probe = subprocess.run(keeper_command("--probe"), capture_output=True, check=False, stdin=subprocess.DEVNULL)
    return "namespace" if probe.returncode == 0 else "nobody"


class ServerProcess:
    """A running server and the keeper that ends it with this process.

    Invariants:

    1. The server does not outlive the process that made this object, even when that is killed.
    2. After :meth:`stop` has returned, the server is gone and its port is free.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        stop_signal: str,
        run_as: RunAs = "same",
        remove: Path | None = None,
        grace: float = 30.0,
        inherit: Sequence[int] = (),
    ) -> None:
        """Start the server.

        ``remove`` names a folder to delete when the server has ended, ``inherit`` the descriptors that it keeps open
        (a lock on its data folder), ``grace`` how long it may take over a clean stop, in seconds.
        """
        self.log = log
        options = ["--signal", stop_signal, "--grace", str(grace), "--user", run_as]
        if remove is not None:
            options += ["--remove", str(remove)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
        with log.open("ab") as sink:
            self._keeper = subprocess.Popen(
                keeper_command(*options, "--", *command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                env=environment | {"LC_ALL": "C"},
                pass_fds=inherit,
                # Ctrl-C in a terminal reaches the program only, which then stops its servers in its own order.
                start_new_session=True,
            )
        assert self._keeper.stdout is not None
        self.pid = int(self._keeper.stdout.readline() or 0)
        """The server's own process id."""

    @property
    def exit_status(self) -> int | None:
        """The server's exit status, None while it runs."""
        return self._keeper.poll()

    def wait(self, seconds: float) -> int | None:
        """Wait until the server has ended by itself; returns its exit status, None when time was up."""
        try:
            return self._keeper.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def wait_until(self, answers: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until ``answers()`` is true. Raises ConfigurationError when the server ends first, or time is up."""
        deadline = time.monotonic() + seconds
        while not answers():
            status = self.wait(0.02)
            if status is not None:
                raise ConfigurationError(f"{what} ended with status {status} while starting{self.log_tail()}")
            if time.monotonic() > deadline:
                self.stop()
                raise ConfigurationError(f"{what} did not answer within {seconds:.0f} s{self.log_tail()}")

    def log_tail(self) -> str:
        """Return the end of the server's log, as the continuation of an error message."""
        with contextlib.suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
            if lines:
                return "; the end of its log:\n" + "\n".join(f"    {line}" for line in lines)
        return "; its log is empty"

    def stop(self) -> None:
        """Stop the server and wait until it is gone. Does nothing when it has ended already."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        # The keeper takes the end of its standard input for the end of this process.
        self._keeper.stdin.close()
        self._keeper.wait()
        self._keeper.stdout.close()

    def __repr__(self) -> str:
        return f"<ServerProcess pid={self.pid} exit_status={self.exit_status} log={str(self.log)!r}>"
