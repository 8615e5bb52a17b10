"""The read models' SQL: whole statements by name, from ``sql/``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).with_name("sql")
_BLOCK: Final = re.compile(r"^-- name: (?P<name>\w+)\n(?P<body>.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL)

TABLES: Final = (_FOLDER / "tables.sql").read_text(encoding="utf-8")
"""What makes the read models' tables."""
SQL: Final = {
    block["name"]: block["body"].strip() for block in _BLOCK.finditer((_FOLDER / "statements.sql").read_text("utf-8"))
}
"""The statements by name."""
