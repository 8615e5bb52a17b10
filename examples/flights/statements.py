"""The read models' SQL: whole statements by name, from ``sql/``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, LiteralString, cast

_FOLDER: Final = Path(__file__).with_name("sql")


def _read(name: str) -> LiteralString:
    # A file of the program is as trustworthy as its text.
    return cast("LiteralString", (_FOLDER / name).read_text(encoding="utf-8"))


TABLES: Final = _read("tables.sql")
SQL: Final = {
    found["name"]: cast("LiteralString", found["body"].strip())
    for found in re.finditer(
        r"^-- name: (?P<name>\w+)\n(?P<body>.*?)(?=^-- name: |\Z)", _read("statements.sql"), re.MULTILINE | re.DOTALL
    )
}
