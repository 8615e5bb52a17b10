"""Runs the command line as a user does."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from headwater.cluster.cli import main


def headwater(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line: as a process in a folder, or else right here, which is much faster.

    Its output is as wide as in a pipe, unless COLUMNS is given.
    """
    command = [sys.executable, "-m", "headwater", *arguments]
    around = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | environment
    if cwd is not None:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, env=around, check=False)
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["headwater", *arguments]),
        mock.patch.dict(os.environ, around, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return subprocess.CompletedProcess(command, int(ended.value.code or 0), out.getvalue(), err.getvalue())
