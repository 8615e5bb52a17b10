"""A run's results as one JSON document, and how it is written and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

FORMAT: Final = 1


def write(results: dict[str, Any], path: Path) -> None:
    """Write the results; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Read results back. Raises ValueError for anything else."""
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if results.get("format") != FORMAT:
        raise ValueError(f"{path} does not hold results of this program (format {FORMAT})")
    return results
