"""What machine and what server the figures come from. Figures without these facts mean nothing."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import psycopg

SETTINGS: Final = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_level",
    "wal_sync_method",
    "shared_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "max_connections",
    "jit",
)
PACKAGES: Final = ("headwater", "psycopg", "psycopg-binary", "orjson", "ray", "redis", "eventsourcing")
SYNCS: Final = 200


def machine_facts() -> dict[str, Any]:
    """Return what is known of this machine and this program."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.system(),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": commit(),
    }


def server_facts(url: str) -> dict[str, str]:
    """Return the server's version and the settings that decide how fast it can be."""
    with psycopg.connect(url) as conn:
        return {name: conn.execute("SELECT current_setting(%s)", [name]).fetchall()[0][0] for name in SETTINGS}


def sync_time(folder: Path | None = None) -> dict[str, float]:
    """Measure how long the disk takes to make 8 kB durable, in microseconds.

    The folder should be on the server's disk; None takes the one for temporary files, where embedded servers live.
    """
    times = []
    sync = getattr(os, "fdatasync", os.fsync)
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(SYNCS):
            os.pwrite(file.fileno(), b"x" * 8192, 0)
            begun = time.perf_counter()
            sync(file.fileno())
            times.append((time.perf_counter() - begun) * 1e6)
    return {"median": statistics.median(times), "p99": sorted(times)[int(SYNCS * 0.99) - 1]}


def load() -> dict[str, Any]:
    """Return the load averages, and what the processors have done so far where the system tells."""
    busy = None
    if Path("/proc/stat").exists():
        ticks = [int(number) for number in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        busy = {"busy": sum(ticks) - ticks[3] - ticks[4], "all": sum(ticks)}
    return {"average": os.getloadavg(), "ticks": busy}


def commit() -> str | None:
    """Return the commit that is checked out, with a mark when files differ from it; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
