"""Looking at processes and ports from outside, on Linux and macOS, without further packages."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """One process that runs: those that only wait to be reaped do not count."""

    pid: int
    parent: int
    command: str


def processes() -> list[Process]:
    """Return every process that runs."""
    found = _from_proc() if Path("/proc/self/stat").exists() else _from_ps()
    return [process for process, state in found if not state.startswith("Z")]


def is_running(pid: int) -> bool:
    """Return whether a process runs."""
    return any(process.pid == pid for process in processes())


def descendants(pid: int) -> list[Process]:
    """Return the processes below one, children first."""
    listed = processes()
    found: list[Process] = []
    parents = {pid}
    while parents:
        level = [process for process in listed if process.parent in parents]
        found += level
        parents = {process.pid for process in level}
    return found


def is_listening(port: int) -> bool:
    """Return whether anybody takes connections on a port of the loopback interface."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def _from_proc() -> Iterator[tuple[Process, str]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            # A process may end while it is being looked at.
            with contextlib.suppress(OSError):
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield Process(int(folder.name), int(parent), command), state


def _from_ps() -> Iterator[tuple[Process, str]]:
    command = ["ps", "-A", "-o", "pid=,ppid=,stat=,args="]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as ps:
        rows = [line.split(None, 3) for line in ps.communicate()[0].splitlines()]
    for pid, parent, state, args in (row for row in rows if len(row) == 4):
        if int(pid) not in (ps.pid, os.getpid()):
            yield Process(int(pid), int(parent), args), state
