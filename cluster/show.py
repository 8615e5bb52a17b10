"""Answers of the command line: a table for people, JSON for programs.

Knows nothing of what it shows but that it is dataclasses and dicts.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import orjson
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 200
"""The width of a table that goes into a file or a pipe."""


def rows(values: Sequence[Any], *, json: bool, empty: str = "", leave_out: Collection[str] = ()) -> None:
    """Show dataclasses of one kind: a row each."""
    records = [asdict(value) for value in values]
    if json:
        _json(records)
    elif not records:
        print(empty)
    else:
        columns = [name for name in records[0] if name not in leave_out]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in columns:
            numeric = all(record[name] is None or isinstance(record[name], int | float) for record in records)
            table.add_column(name.replace("_", " "), justify="right" if numeric else "left")
        for record in records:
            table.add_row(*(Text(_text(record[name])) for name in columns))
        _print(table)


def record(values: Mapping[str, Any], *, json: bool) -> None:
    """Show one record: a line for each field."""
    if json:
        _json(dict(values))
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in values.items():
        table.add_row(name.replace("_", " "), Text(_text(value)))
    _print(table)


def payload(value: Any) -> str:
    """Return a payload as JSON in one line: a string and a number look different."""
    return orjson.dumps(value, default=str).decode()


def when(time: datetime) -> str:
    """Return a time as people here read it."""
    return time.astimezone().isoformat(" ", "seconds")


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def _json(value: Any) -> None:
    print(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode())


def _text(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:,.1f}"
        case int():
            return f"{value:,}"
        case datetime():
            return when(value)
        case dict():
            return ", ".join(f"{name} {_text(each)}" for name, each in value.items()) or "-"
        case list() | tuple():
            return ", ".join(map(_text, value)) or "-"
        case _:
            return str(value)
