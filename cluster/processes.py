"""Process trees of this machine, by what the system itself says about them.

Signals only processes that it is given, and none that has meanwhile got the number of one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable
from typing import Final, NamedTuple

PARENT_CHECK: Final = 0.05
"""How often a process looks whether its parent is still there, in seconds, where the system does not tell."""


class Process(NamedTuple):
    """A process, told apart from any later one of the same number by when it started."""

    pid: int
    started: str


def tree(root: int) -> list[Process]:
    """Return a process and everything below it, parents first; nothing when it is gone."""
    found = []
    everything = _listing()
    pending = [root]
    for pid in pending:
        if pid in everything:
            found.append(Process(pid, everything[pid][1]))
            pending.extend(child for child, (parent, _) in everything.items() if parent == pid)
    return found


def send(processes: Iterable[Process], number: signal.Signals) -> None:
    """Send a signal to each process that is still there."""
    everything = _listing()
    for process in processes:
        if process.pid in everything and everything[process.pid][1] == process.started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


async def end_with_parent() -> None:
    """End this process at once, with status 1, when the one that started it has ended; cancel it to go on without."""
    parent = os.getppid()
    await _end_of(parent)
    while os.getppid() == parent:  # noqa: ASYNC110  # nobody tells, or it became a parent's end a moment ago
        await asyncio.sleep(PARENT_CHECK)
    os._exit(1)


async def _end_of(pid: int) -> None:
    """Wait for the end of a process, without waking for it; returns at once where the system cannot tell."""
    open_one = getattr(os, "pidfd_open", None)
    if open_one is None:
        return
    try:
        told = open_one(pid)
    except OSError:  # gone already, or not allowed in here
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(told, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(told)
        os.close(told)


def _listing() -> dict[int, tuple[int, str]]:
    """Return the parent and the start time of every process."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,lstart="],  # noqa: S607  wherever the system keeps it
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = (line.split(None, 2) for line in listing.splitlines())
    return {int(pid): (int(parent), started) for pid, parent, started in rows}
