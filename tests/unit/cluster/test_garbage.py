"""What a process has imported is not gone through again by its garbage collector."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, sys, types
from headwater.cluster.garbage import Garbage

garbage = Garbage()
garbage.spare_modules()
first = gc.get_freeze_count()
kept = [[] for _ in range(1000)]
garbage.spare_modules()
second = gc.get_freeze_count()
sys.modules["new"] = types.ModuleType("new")
garbage.spare_modules()
print(first > 10_000, second <= first, gc.get_freeze_count() > second, gc.isenabled())
"""


def test_what_is_imported_is_set_aside_and_what_is_made_between_is_not() -> None:
    # In a process of its own: what is set aside stays so.
    seen = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert seen.stdout.split() == ["True"] * 4
