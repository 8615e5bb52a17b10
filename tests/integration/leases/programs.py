"""Starts owners in processes of their own, and speaks with them line by line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LEASE: Final = 2.0
LONG: Final = 30.0
"""For owners whose session must not end by itself, however long somebody is kept waiting."""

MANY_TRIES: Final = 90.0
"""Seconds: for what takes several leases and is tried again when a pause came in between."""


class OwnerProgram:
    """A running owner."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def tell(self, line: str) -> None:
        """Ask for something, without waiting for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        """Wait for the next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the owner has ended"
        return line.strip()

    def ask(self, line: str) -> str:
        """Ask for something and wait for the answer."""
        self.tell(line)
        return self.answer()


@contextmanager
def owner(
    url: str,
    host: str,
    lock_id: int,
    *,
    lease: float = LEASE,
    leases_url: str | None = None,
    prefix: tuple[str, ...] = (),
) -> Iterator[OwnerProgram]:
    """Run an owner for the length of the block; ``leases_url`` is the way of its lease session."""
    command = [
        *prefix,
        sys.executable,
        "-m",
        "tests.integration.leases.owner",
        leases_url or url,
        url,
        host,
        str(lock_id),
        str(lease),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    ) as process:
        try:
            found = OwnerProgram(process)
            assert found.answer() == "ready"
            yield found
        finally:
            process.kill()
