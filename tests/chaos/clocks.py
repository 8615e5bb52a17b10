"""Wall clocks that can be stepped, one for each process that wants one, by a library that is compiled here.

Only on Linux, with a C compiler; ``Clocks.make`` gives None elsewhere. No clock but the time of day is touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

SOURCE = Path(__file__).parent / "programs" / "clock.c"


class Clocks:
    """A compiled library, and the files by which the clocks are set."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._folder = folder
        self._library = library

    @classmethod
    def make(cls, folder: Path) -> Self | None:
        """Compile the library into a folder; None where that cannot be done."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if sys.platform != "linux" or compiler is None:
            return None
        library = folder / "clock.so"
        command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl"]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            return None
        return cls(folder, library)

    def environment(self, name: str) -> dict[str, str]:
        """Return what a process needs in its environment for its clock to be the one of this name."""
        if not self._file(name).exists():
            self.step(name, 0)
        return {"LD_PRELOAD": str(self._library), "HEADWATER_CHAOS_CLOCK": str(self._file(name))}

    def step(self, name: str, seconds: float) -> None:
        """Let the clock of this name be so much ahead of the machine's."""
        file = os.open(self._file(name), os.O_RDWR | os.O_CREAT, 0o644)
        os.pwrite(file, int(seconds * 1e9).to_bytes(8, "little", signed=True), 0)
        os.close(file)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.clock"
