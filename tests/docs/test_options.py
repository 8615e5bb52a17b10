"""The tables of docs/options.md name every option, with the default and the unit that the code has."""

from __future__ import annotations

import re
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from headwater import ORIGIN, Delivery, Filter, OnFailure, RetryPolicy, SubscriptionOptions

PAGE = (Path(__file__).parents[2] / "docs" / "options.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| `(.+?)` \| (.+?) \| (.+) \|$", re.MULTILINE)
NAMES: dict[str, Any] = {
    "td": timedelta,
    "ORIGIN": ORIGIN,
    **{kind.__name__: kind for kind in (Delivery, Filter, OnFailure, RetryPolicy)},
}
"""What the defaults in the tables may be written with."""


@pytest.mark.parametrize("kind", [SubscriptionOptions, RetryPolicy])
def test_the_table_has_every_option_in_order_with_its_default_and_its_unit(kind: Any) -> None:
    section = PAGE.partition(f"\n## `{kind.__name__}`\n")[2].partition("\n## ")[0]
    rows = ROW.findall(section)
    assert len(rows) == sum(line.startswith("| `") for line in section.splitlines())
    assert [name for name, *_ in rows] == [field.name for field in fields(kind)]
    code = kind()
    types = {field.name: str(field.type) for field in fields(kind)}
    for name, default, unit, _ in rows:
        assert eval(default, NAMES) == getattr(code, name), name
        assert (unit == "time") == ("timedelta" in types[name]), name
        assert (unit == "pairs") == types[name].startswith("tuple[tuple["), name
