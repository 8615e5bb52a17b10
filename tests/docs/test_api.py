"""The programs that docs/api.md shows print what stands below them."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

API = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
PROGRAM = re.compile(r"^```python\n(# (\w+)\.py\n.*?)^```\n\n```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROGRAMS = {name: (text, prints) for text, name, prints in PROGRAM.findall(API)}


def test_there_are_programs() -> None:
    assert {"typed_events", "old_shapes", "forgetting", "invoices"} <= PROGRAMS.keys()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_prints_what_stands_below_it(name: str, empty_database_url: str, tmp_path: Path) -> None:
    text, prints = PROGRAMS[name]
    (tmp_path / f"{name}.py").write_text(text)
    environment = {
        **os.environ,
        "HEADWATER_DATABASE_URL": empty_database_url,
        "HEADWATER_MASTER_KEYS": f"first:{base64.b64encode(os.urandom(32)).decode()}",
    }
    done = subprocess.run(
        [sys.executable, f"{name}.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (prints, "")
