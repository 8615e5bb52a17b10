"""Run one server as a child and end it when the process that asked for it is gone, however that one died.

A script (``python -I -S keeper.py OPTIONS -- COMMAND``), never imported by a program: standard library only.

The process that asks holds the other end of this script's standard input. When that end closes, because it was told to
stop or because it was killed, the keeper signals the server, waits, and removes the folder it was told to remove.
Should the keeper itself be killed, the kernel signals the server (Linux).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from typing import NoReturn

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
UNPRIVILEGED_ID = 1000


def enter_user_namespace() -> bool:
    """Leave uid 0 behind by name only: files stay root's outside, and the server sees an ordinary user inside."""
    if sys.platform != "linux":
        return False
    gid = os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER) != 0:
        return False
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{UNPRIVILEGED_ID} 0 1"),
        ("gid_map", f"{UNPRIVILEGED_ID} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - pathlib would triple this script's start time
            file.write(text)
    return True


def become_nobody() -> None:
    """Leave uid 0 behind for good, where user namespaces are refused."""
    import pwd

    entry = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.chdir("/")


def give_up(problem: str) -> NoReturn:
    """End the forked child at once: nothing of the keeper's own clean-up is this child's to do."""
    os.write(2, f"{problem}\n".encode())
    os._exit(126)


def become_server(options: argparse.Namespace, keeper: int) -> NoReturn:
    """Turn this forked child into the server, in a process group of its own."""
    os.setpgid(0, 0)
    if options.user == "namespace" and not enter_user_namespace():
        give_up("the kernel refused a user namespace")
    if options.user == "nobody":
        become_nobody()
    if sys.platform == "linux":
        # After the change of user, which clears it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, options.signal, 0, 0, 0)
        if os.getppid() != keeper:
            give_up("the keeper ended before the server began")
    os.dup2(2, 1)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.execv(options.command[0], options.command)


def wait_for_end(server: int, seconds: float | None, watched: list[int], wakeup: int) -> int | None:
    """Return the server's exit status; None when a watched descriptor or a signal came first, or time was up."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(server, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return None
        readable, _, _ = select.select([*watched, wakeup], [], [], left)
        signals = os.read(wakeup, 64) if wakeup in readable else b""
        if watched and (watched[0] in readable or any(number != signal.SIGCHLD for number in signals)):
            return None


def keep(options: argparse.Namespace) -> int:
    """Run the server until it ends or must end; returns its exit status."""
    wakeup, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    keeper = os.getpid()
    server = os.fork()
    if server == 0:
        try:
            become_server(options, keeper)
        except (OSError, KeyError) as error:
            give_up(f"cannot start {options.command[0]} as {options.user!r}: {error}")
    os.write(1, b"%d\n" % server)
    status = wait_for_end(server, None, [0], wakeup)
    if status is not None:
        return status
    for number, patience in ((options.signal, options.grace), (signal.SIGQUIT, 5.0), (signal.SIGKILL, None)):
        os.kill(server, number)
        status = wait_for_end(server, patience, [], wakeup)
        if status is not None:
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server, signal.SIGKILL)  # what it had started: initdb's own server, when initdb was interrupted
    if options.remove:
        remove_folder(options.remove)
    return 1 if status is None else status


def remove_folder(path: str, seconds: float = 5.0) -> None:
    """Delete a folder, again while something that is just ending still writes to it."""
    import shutil  # costs more to load than all the rest, and most keepers do not need it

    deadline = time.monotonic() + seconds
    while True:
        shutil.rmtree(path, ignore_errors=True)
        if not os.path.lexists(path) or time.monotonic() > deadline:
            return
        time.sleep(0.02)


def main() -> int:
    """Read the options and run the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signal", type=lambda name: signal.Signals[name], default=signal.SIGTERM)
    parser.add_argument("--grace", type=float, default=30.0, help="seconds between the signal and a harder one")
    parser.add_argument("--user", choices=("same", "namespace", "nobody"), default="same")
    parser.add_argument("--remove", help="folder to remove after the server, when it was made to end")
    parser.add_argument("--probe", action="store_true", help="only tell whether a user namespace can be had")
    parser.add_argument("command", nargs="*")
    options = parser.parse_args()
    if options.probe:
        return 0 if enter_user_namespace() else 1
    return keep(options)


if __name__ == "__main__":
    status = main()
    # A negative status is the number of the signal that ended the server: say it as a shell would.
    sys.exit(128 - status if status < 0 else status)
