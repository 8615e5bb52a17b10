"""How much memory a process of this machine has, as the system itself says.

Knows nothing of what the process does.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc/self/statm").exists()


def resident(pid: int) -> int | None:
    """Return a process's resident memory in bytes; None when it is gone."""
    try:
        if _PROC:
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        # Where the system has no such files, its own tool is asked.
        found = subprocess.run(  # noqa: S603
            ["ps", "-o", "rss=", "-p", str(pid)],  # noqa: S607  wherever the system keeps it
            capture_output=True,
            text=True,
            check=False,
        ).stdout.split()
        return int(found[0]) * 1024 if found else None
    except (OSError, IndexError, ValueError):
        return None
