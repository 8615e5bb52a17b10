"""Answers of the command line: a table for people, JSON for programs.

Knows nothing of what it shows but that it is dataclasses and dicts, in which ``x_more`` says that ``x`` is only the
least that there is: people see that as a plus behind it.
"""

from __future__ import annotations

import itertools
import os
import sys
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import orjson
from rich import box
from rich.cells import cell_len, chop_cells, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 200
"""The width of a table that goes into a file or a pipe."""
GAP = 2
"""The space between two columns."""
NARROWEST = 8
"""What a column of texts has at the least, however narrow the terminal is."""


def rows(values: Sequence[Any], *, json: bool, empty: str = "", leave_out: Collection[str] = ()) -> None:
    """Show dataclasses of one kind: a row each."""
    records = [asdict(value) for value in values]
    if json:
        _json(records)
    elif not records:
        print(empty)
    else:
        columns = [name for name in _shown(records[0]) if name not in leave_out]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in columns:
            numeric = all(record[name] is None or isinstance(record[name], int | float) for record in records)
            table.add_column(name.replace("_", " "), justify="right" if numeric else "left")
        for record in records:
            table.add_row(*(Text(_field(record, name)) for name in columns))
        _console().print(table)


def briefly(
    records: Sequence[Mapping[str, Any]],
    reasons: Sequence[str | None] | None,
    *,
    empty: str,
    width: int | None = None,
    called: str = "reason",
) -> None:
    """Show records for a narrow terminal: each reason in a last column where all of them fit, else below its row."""
    for line in lines(records, reasons, width or _console().width, called) if records else [empty]:
        print(line)


def sentence(text: str) -> None:
    """Show a sentence in lines as long as the terminal's."""
    print("\n".join(textwrap.wrap(text, _console().width)))


def lines(
    records: Sequence[Mapping[str, Any]], reasons: Sequence[str | None] | None, width: int, called: str = "reason"
) -> list[str]:
    """Return a table as lines of at most ``width``; only its figures may make them longer.

    A text that is too long for its column goes on in the next line, so that nothing is cut off.
    """
    names = _shown(records[0])
    cells = [[_line(_field(each, name)) for name in names] for each in records]
    notes = ["" if each is None else _line(each) for each in reasons or ()]
    heads = [name.replace("_", " ") for name in names]
    numeric = [all(each[n] is None or isinstance(each[n], int | float) for each in records) for n in names]
    sizes = [max(cell_len(row[n]) for row in (heads, *cells)) for n in range(len(names))]
    if any(notes) and sum(sizes) + GAP * len(sizes) + max(map(cell_len, notes)) <= width:
        # Below the head of the column, too, nothing is longer than the reason.
        cells = [[*row, note] for row, note in zip(cells, notes, strict=True)]
        heads, numeric, notes = [*heads, called], [*numeric, False], []
        sizes.append(max(cell_len(row[-1]) for row in (heads, *cells)))
    while sum(sizes) + GAP * (len(sizes) - 1) > width:
        widest = max((n for n in range(len(sizes)) if not numeric[n]), key=lambda n: sizes[n], default=0)
        if numeric[widest] or sizes[widest] <= NARROWEST:
            break
        sizes[widest] -= 1
    found = [*_row(heads, sizes, numeric), "-" * min(width, sum(sizes) + GAP * (len(sizes) - 1))]
    for row, note in zip(cells, notes or [""] * len(cells), strict=True):
        found += _row(row, sizes, numeric)
        found += textwrap.wrap(note, max(width, NARROWEST), initial_indent="  ", subsequent_indent="  ")
    return found


def _row(row: Sequence[str], sizes: Sequence[int], numeric: Sequence[bool]) -> list[str]:
    parts = [chop_cells(text, size) or [""] for text, size in zip(row, sizes, strict=True)]
    return [
        (" " * GAP)
        .join(
            part.rjust(size) if right else set_cell_size(part, size)
            for part, size, right in zip(line, sizes, numeric, strict=True)
        )
        .rstrip()
        for line in itertools.zip_longest(*parts, fillvalue="")
    ]


def _line(text: str) -> str:
    """Return a text in one line, without what would move a terminal's cursor."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def record(values: Mapping[str, Any], *, json: bool) -> None:
    """Show one record: a line for each field."""
    if json:
        _json(dict(values))
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name in _shown(values):
        table.add_row(name.replace("_", " "), Text(_field(values, name)))
    _console().print(table)


def payload(value: Any) -> str:
    """Return a payload as JSON in one line: a string and a number look different."""
    return orjson.dumps(value, default=str).decode()


def when(time: datetime) -> str:
    """Return a time as people here read it."""
    return time.astimezone().isoformat(" ", "seconds")


def _console() -> Console:
    """Return what writes as wide as the terminal is, or as COLUMNS says; into a file or a pipe it is wide."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE)


def _json(value: Any) -> None:
    print(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode())


def _shown(record: Mapping[str, Any]) -> list[str]:
    return [name for name in record if name.removesuffix("_more") == name or name.removesuffix("_more") not in record]


def _field(record: Mapping[str, Any], name: str) -> str:
    return _text(record[name]) + ("+" if record.get(f"{name}_more") else "")


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


def span(seconds: float) -> str:
    """Return a length of time in the unit that says it shortest."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.1f} s"
