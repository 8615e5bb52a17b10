"""Starts programs that end with this one, and tells what state a process is in."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PR_SET_PDEATHSIG: Final = 1

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def start(
    *command: str, environment: Mapping[str, str] | None = None, log: Path | None = None, answers: bool = False
) -> subprocess.Popen[bytes]:
    """Start a program, out of reach of a terminal's Ctrl-C. Call from the main thread: it dies with that thread."""
    sink = subprocess.DEVNULL if log is None else log.open("ab")
    try:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if answers else sink,
            stderr=sink,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    finally:
        if not isinstance(sink, int):
            sink.close()


def start_proxy(*arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start one of the proxy programs; returns it and the port it listens on."""
    process = start(sys.executable, "-I", "-S", *arguments, answers=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a program, in whatever state it is, and wait until it has gone. Safe to repeat."""
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def state(pid: int) -> str:
    """Return the letter for a process's state: ``T`` is frozen, ``Z`` dead; empty when there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return _state_by_ps(pid)


def _state_by_ps(pid: int) -> str:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip()[:1]


def gone(pid: int) -> bool:
    """Whether there is no such process, or only what is left of it."""
    return state(pid) in ("", "Z", "X")


def frozen(pid: int) -> bool:
    """Whether a process is stopped by a signal."""
    return state(pid) == "T"
