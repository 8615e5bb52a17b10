"""The processes that append while everything breaks, and how much of theirs is certainly written."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.chaos.processes import end, start
from tests.plugins.waiting import wait_until


class Writers:
    """Use ``stop`` to let them finish; ``close`` ends them in any case."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []
        self._started = 0

    def start(self, *, rate: float, batch: int, streams: int) -> None:
        """Start one more, which appends so many events a second, so many at a time, to so many streams."""
        self._started += 1
        options = [str(self._started), str(self._file(self._started)), str(rate), str(batch), str(streams)]
        self._running.append(
            start(
                *(sys.executable, "-m", "tests.chaos.programs.writer", *options),
                environment=self._environment,
                log=self._folder / f"writer{self._started}.log",
            )
        )

    def written(self) -> dict[int, int]:
        """Return how many events of each writer are known to be written."""
        found = {}
        for number in range(1, self._started + 1):
            with contextlib.suppress(FileNotFoundError):
                found[number] = int.from_bytes(self._file(number).read_bytes(), "little")
        return found

    def stop(self) -> None:
        """Let each finish the append under way. Raises AssertionError when one has not ended well."""
        for process in self._running:
            process.send_signal(signal.SIGTERM)
        for process in self._running:
            wait_until(lambda process=process: process.poll() is not None, what="waiting for a writer")  # type: ignore[misc]
            assert process.returncode == 0, f"a writer ended with status {process.returncode}"
        self._running.clear()

    def close(self) -> None:
        """End them at once."""
        for process in self._running:
            end(process)
        self._running.clear()

    def _file(self, number: int) -> Path:
        return self._folder / f"writer{number}.count"
