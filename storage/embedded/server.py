"""What the embedded servers have in common: a port, a folder, a start, a stop.

Knows nothing of what any of them serves.
"""

from __future__ import annotations

import atexit
import os
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

from headwater.storage.embedded.folder import ServerFolder
from headwater.storage.embedded.ports import choose_port
from headwater.storage.embedded.process import RunAs, ServerProcess
from headwater.storage.errors import ConfigurationError

LEAVE_SECONDS: Final = 10.0
"""How long it is waited for the processes of a server that has ended by itself: those that run notice it at once."""
PORT_ATTEMPTS: Final = 5
"""A free port may be taken by somebody else before the server listens on it."""


class EmbeddedServer(ABC):
    """A server that ends with the program that started it, also when that is killed. Listens on loopback only.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`. Every problem is a ConfigurationError.
    """

    kind: ClassVar[str]
    """What its throw-away folders are named after."""
    name: ClassVar[str]
    """What its errors call it."""
    start_seconds: ClassVar[float]
    """How long a start may take."""
    stop_signal: ClassVar[str] = "SIGTERM"
    """What asks the server to end in good order."""

    def __init__(self, data_dir: str | os.PathLike[str] | None, port: int) -> None:
        self._data_dir = None if data_dir is None else Path(data_dir).expanduser().absolute()
        self._process: ServerProcess | None = None
        self._folder: ServerFolder | None = None
        self.port = port
        """The port it listens on; 0 before the first start when none was named. Later starts keep it."""

    @property
    @abstractmethod
    def url(self) -> str:
        """How to connect."""

    @abstractmethod
    def _prepare(self, folder: ServerFolder) -> RunAs:
        """Make what the server needs in its folder; returns the user it is to run under."""

    @abstractmethod
    def _command(self, folder: ServerFolder, port: int) -> list[str]:
        """Return the server's command line."""

    @abstractmethod
    def _answers(self) -> bool:
        """Try whether the server takes requests."""

    @property
    def pid(self) -> int:
        """The process id of the server. Raises ConfigurationError when it was not started."""
        if self._process is None:
            raise ConfigurationError(f"{self.name} was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server was started, and has neither been stopped nor ended by itself."""
        return self._process is not None and self._process.exit_status is None

    def log_tail(self) -> str:
        """Return the end of the server's log, as the continuation of an error message."""
        return "" if self._process is None else self._process.log_tail()

    def start(self) -> Self:
        """Start the server and wait until it answers. Does nothing when it runs."""
        if self.running:
            return self
        self.stop()
        choose_port(self.port)
        folder = ServerFolder(self._data_dir, self.kind)
        try:
            self._process = self._launch(folder, self._prepare(folder))
        except BaseException:
            if folder.throw_away:
                folder.remove()
            raise
        finally:
            folder.release()
        self._folder = folder
        # A program that forgets to stop its servers still ends in good order.
        atexit.register(self.stop)
        return self

    def stop(self) -> None:
        """Stop the server, wait until it is gone, and remove throw-away data. Does nothing when it was not started."""
        process, self._process = self._process, None
        folder, self._folder = self._folder, None
        if process is None or folder is None:
            return
        atexit.unregister(self.stop)
        ended_by_itself = process.exit_status is not None
        process.stop()
        if ended_by_itself:
            folder.wait_until_left(LEAVE_SECONDS)
        if folder.throw_away:
            folder.remove()

    def _launch(self, folder: ServerFolder, run_as: RunAs) -> ServerProcess:
        for attempts_left in reversed(range(PORT_ATTEMPTS)):
            wanted, self.port = self.port, choose_port(self.port)
            process = self._spawn(self._command(folder, self.port), folder, run_as)
            try:
                process.wait_until(self._answers, self.start_seconds, self.name)
            except BaseException as error:
                process.stop()
                lost_a_race = isinstance(error, ConfigurationError) and "Address already in use" in error.problem
                self.port = wanted
                if wanted == 0 and lost_a_race and attempts_left:
                    continue
                raise
            return process
        raise AssertionError("the last attempt returns or raises")

    def _spawn(self, command: list[str], folder: ServerFolder, run_as: RunAs) -> ServerProcess:
        """Run a program in the folder, for as long as this process lives."""
        return ServerProcess(
            command,
            log=folder.rotate_log(),
            stop_signal=self.stop_signal,
            run_as=run_as,
            remove=folder.path if folder.throw_away else None,
            inherit=[folder.descriptor],
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {f'port={self.port}' if self.running else 'stopped'}>"
