"""How much memory a process has."""

from __future__ import annotations

import os
import subprocess
import sys

from headwater.cluster.memory import resident


def test_the_memory_of_a_process_grows_with_what_it_holds_and_nobody_has_none() -> None:
    before = resident(os.getpid()) or 0
    hoard = b"x" * 50 * 2**20
    after = resident(os.getpid()) or 0
    assert after - before > len(hoard) / 2
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    assert resident(ended.pid) is None
