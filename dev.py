#!/usr/bin/env python3
"""Everything a developer runs, from a fresh checkout, with nothing but Python: ./dev.py COMMAND [ARGS]

    demo    run the demonstration          test    run all checks and tests; with ARGS, only pytest with them
    lint    run the checks only            chaos   break everything at random under load, and print what came of it
    bench   run the benchmarks             parity  print which test covers which behaviour of the reference
    dev     keep servers for development   shell   open a shell in the environment
    clean   remove what was made here, the development data excepted

The environment is made in .venv, by uv when it is there and else by venv and pip, and brought up to date when
pyproject.toml has changed. Standard library only, and nothing newer than Python 3.8 before the version is checked.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "headwater.json"
OLDEST_PYTHON = (3, 11)
STOP_SECONDS = 6  # after a signal: all is to be gone within ten
REST_SECONDS = 3  # for what a command leaves behind
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

EXTRAS = {"demo": ["demo"], "dev": ["embedded"], "lint": ["dev"], "shell": ["dev"]}
EVERYTHING = ["dev"]

MYPY_TARGETS = ["-p", "headwater", "-p", "tests", "-p", "examples", "-p", "benchmarks", "-m", "dev"]
LINTERS = [
    ("ruff check", ["ruff", "check"]),
    ("ruff format", ["ruff", "format", "--check"]),
    ("mypy", ["mypy", *MYPY_TARGETS]),
    ("import rules", ["lint-imports"]),
]
CACHES = (".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".import_linter_cache")
MADE_HERE = (".venv", "build", "dist", "out", *CACHES)
NOT_BY_DEFAULT = ["-m", "not slow and not chaos"]
# Two at once is what two cores bear; tests that start Ray clusters stay together, one after another.
IN_PARALLEL = ["-n", "2", "--dist", "loadgroup"]


def main() -> int:
    """Run the command that was asked for; returns the exit status."""
    command, arguments = (sys.argv[1] if len(sys.argv) > 1 else "help"), sys.argv[2:]
    if command in ("help", "-h", "--help"):
        print(str(__doc__).strip())
        return 0
    actions = {
        "demo": lambda: run_module("examples.flights", arguments),
        "test": lambda: test(arguments),
        "lint": lint,
        "chaos": lambda: run_module("tests.chaos", arguments),
        "bench": lambda: run_module("benchmarks", arguments),
        "parity": lambda: run_module("tests.parity.report", arguments),
        "dev": lambda: run_module("headwater.cluster.cli", ["dev", *arguments]),
        "shell": shell,
    }
    if command == "clean":
        return clean()
    if command not in actions:
        print(f"dev.py: there is no command {command!r}; ./dev.py help lists them", file=sys.stderr)
        return 2
    use_a_new_enough_python()
    os.chdir(str(ROOT))
    make_environment(EXTRAS.get(command, EVERYTHING))
    return actions[command]()


# The environment


def use_a_new_enough_python() -> None:
    """Go on under a newer Python when this one is too old."""
    if sys.version_info >= OLDEST_PYTHON:
        return
    for name in ("python3.14", "python3.13", "python3.12", "python3.11"):
        found = shutil.which(name)
        if found:
            os.execv(found, [found, __file__, *sys.argv[1:]])
    stop("Python 3.11 or newer is needed, and none was found on PATH (this is {}.{})".format(*sys.version_info[:2]))


def make_environment(extras: list[str]) -> None:
    """Make .venv, or bring it up to date; does nothing when it is."""
    # Two commands at once must not install into each other's way. Locking this file leaves nothing behind.
    with Path(__file__).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(OSError, ValueError):
            done = json.loads(STAMP.read_text())
            if done["made_from"] == made_from() and set(extras) <= set(done["extras"]) and PYTHON.exists():
                return
            if done["made_from"]["python"] == made_from()["python"]:
                extras = sorted({*extras, *done["extras"]})
        began = time.monotonic()
        uv = working_uv()
        if not is_usable_environment():
            say("making .venv with Python {}.{}.{}".format(*sys.version_info[:3]) + (" by uv" if uv else ""))
            shutil.rmtree(VENV, ignore_errors=True)
            make_empty_environment(uv)
        say(f"installing headwater[{','.join(extras)}]")
        install(uv, "--editable", f".[{','.join(extras)}]")
        STAMP.write_text(json.dumps({"made_from": made_from(), "extras": extras}))
        say(f"the environment is ready after {time.monotonic() - began:.0f} s")


def made_from() -> dict[str, str]:
    """Return what the environment depends on: when any of it changes, it is brought up to date."""
    project = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    return {"python": sys.version, "project": project, "root": str(ROOT)}


def is_usable_environment() -> bool:
    """Return whether .venv holds a Python of the right version that runs, and belongs to this folder."""
    check = f"import sys; sys.exit(sys.version_info < {OLDEST_PYTHON!r} or sys.prefix != {str(VENV)!r})"
    return PYTHON.exists() and call([str(PYTHON), "-c", check]) == 0


def working_uv() -> str | None:
    """Return the path of uv when there is one that runs."""
    found = shutil.which("uv")
    works = found and subprocess.call([found, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    return found if works else None


def make_empty_environment(uv: str | None) -> None:
    """Make a virtual environment with nothing in it, or with pip in it when pip is to fill it."""
    if uv:
        made = call([uv, "venv", "--quiet", "--python", sys.executable, str(VENV)])
    elif can_run("ensurepip"):
        made = call([sys.executable, "-m", "venv", str(VENV)])
    elif can_run("pip"):
        # Debian without python3-venv: the system's pip fills the environment from outside.
        made = call([sys.executable, "-m", "venv", "--without-pip", str(VENV)])
    else:
        stop("neither uv, nor pip, nor Python's ensurepip is here: install one (Debian: apt-get install python3-venv)")
    if made != 0:
        stop("the environment could not be made")


def can_run(module: str) -> bool:
    """Return whether ``python -m module`` would find something to run."""
    with contextlib.suppress(ImportError):
        return importlib.util.find_spec(module + ".__main__") is not None
    return False


def install(uv: str | None, *what: str) -> None:
    """Install into the environment, with a line of progress for each package that is fetched."""
    if uv:
        if call([uv, "pip", "install", "--python", str(PYTHON), *what]) != 0:
            stop("the installation failed")
        return
    has_pip = (VENV / "bin" / "pip").exists()
    pip = [str(PYTHON), "-m", "pip"] if has_pip else [sys.executable, "-m", "pip", "--python", str(PYTHON)]
    child = Child([*pip, "install", "--progress-bar", "off", *what], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines = []
    for line in child.lines():
        lines.append(line)
        if lines[-1].startswith(("Collecting", "  Downloading", "Building", "Installing")):
            say("  " + lines[-1].strip()[:110])
    if child.finish() != 0:
        stop("the installation failed:\n" + "\n".join(lines[-15:]))


# The commands


def call(command: list[str]) -> int:
    """Run a command to its end; returns its exit status."""
    return Child(command).finish()


def run_module(name: str, arguments: list[str]) -> int:
    """Run a module in the environment."""
    return call([str(PYTHON), "-m", name, *arguments])


def lint() -> int:
    """Run each linter and say in one line how it went; returns the exit status."""
    failed = False
    for name, command in LINTERS:
        began = time.monotonic()
        program = [str(VENV / "bin" / command[0]), *command[1:]]
        child = Child(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output = "\n".join(child.lines())
        good = child.finish() == 0
        failed = failed or not good
        say(f"{name:<14}{'ok' if good else 'FAILED':<8}{time.monotonic() - began:5.1f} s")
        if not good:
            print(output, flush=True)
    return 1 if failed else 0


def pytest(arguments: list[str]) -> int:
    """Run the tests."""
    return run_module("pytest", arguments)


def test(arguments: list[str]) -> int:
    """Run the linters and the tests, all of them also when one fails; with arguments, only pytest with these."""
    if arguments:
        return pytest(arguments)
    clean_code = lint() == 0
    status = pytest([*IN_PARALLEL, *NOT_BY_DEFAULT])
    if status == 0 and not clean_code:
        say("the tests passed; the checks before them did not")
        return 1
    return status


def shell() -> NoReturn:
    """Replace this process by a shell in the environment."""
    program = os.environ.get("SHELL") or "/bin/sh"
    path = os.pathsep.join([str(VENV / "bin"), os.environ.get("PATH", os.defpath)])
    os.execve(program, [program], {**environment(), "VIRTUAL_ENV": str(VENV), "PATH": path})


def clean() -> int:
    """Remove the environment, caches and output."""
    for name in MADE_HERE:
        shutil.rmtree(ROOT / name, ignore_errors=True)
    for folder in (*ROOT.glob("*.egg-info"), *ROOT.glob("src/*.egg-info"), *ROOT.rglob("__pycache__")):
        shutil.rmtree(folder, ignore_errors=True)
    return 0


# Processes


def environment() -> dict[str, str]:
    """Return the surroundings for children: the caller's, without what would slow them or lead them astray."""
    unwanted = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    # Compiled modules make Ray's processes start two to four times as fast. A Python from elsewhere is never fetched.
    return {**kept, "UV_COMPILE_BYTECODE": "1", "UV_PYTHON_DOWNLOADS": "never", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


class Child:
    """One running command. It gets every signal that this process gets, and nothing of it is left when it is finished.

    It has a session of its own, so that a Ctrl-C in the terminal reaches it once: from here.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, command: list[str], **options: Any) -> None:
        self.received: int | None = None
        libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        if libc:
            # What the command leaves behind becomes a child of this process, which can then end it.
            libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

        # A signal that comes as soon as the command runs is kept until it can be passed on.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self.SIGNALS)

        def prepare() -> None:
            # A shell's background job is born deaf to Ctrl-C; what it is passed on here is meant.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if libc:
                libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

        try:
            self.process = subprocess.Popen(
                command, env=environment(), start_new_session=True, preexec_fn=prepare, **options
            )
            for number in self.SIGNALS:
                signal.signal(number, self.pass_on)
            signal.signal(signal.SIGALRM, lambda *_: self.kill())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def lines(self) -> Iterator[str]:
        """Yield the lines that the command writes, to the last, when its output was asked for."""
        for line in self.process.stdout or ():
            yield line.decode(errors="replace").rstrip()

    def pass_on(self, number: int, _frame: FrameType | None) -> None:
        """Pass a signal on, and do not wait for ever for what it brings about."""
        self.received = number
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)
        signal.alarm(STOP_SECONDS)

    def kill(self) -> None:
        """Kill the command, its session, and whatever this process has inherited from it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def finish(self) -> int:
        """Wait for the end; returns the exit status. Exits when a signal has asked for it."""
        pid, status = os.waitpid(-1, 0)
        while pid != self.process.pid:  # but something that has become this process' child meanwhile
            pid, status = os.waitpid(-1, 0)
        status = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        self.process.returncode = status
        if self.process.stdout:
            self.process.stdout.close()
        signal.alarm(0)
        self.finish_rest()
        for number in (*self.SIGNALS, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        if self.received is not None:
            sys.exit(128 + self.received)
        return status

    def finish_rest(self) -> None:
        """Let what the command has left end by itself, and kill what does not."""
        deadline = time.monotonic() + REST_SECONDS
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, _ = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    if time.monotonic() > deadline:
                        self.kill()
                    time.sleep(0.02)
        self.kill()


def children() -> list[int]:
    """Return the process ids of this process' children, where that can be found out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(stat.parent.name))
    return found


def say(text: str) -> None:
    """Tell the developer what is going on."""
    print(text, flush=True)


def stop(problem: str) -> NoReturn:
    """End with one clear line."""
    sys.exit(f"dev.py: {problem}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
