"""Tables of the command line: as narrow as the terminal, with nothing cut off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from headwater.cluster import show

RECORDS: list[dict[str, Any]] = [
    {"subscription": "totals", "node": "node-1", "lag": 12_345},
    {"subscription": "a-long-name-of-a-read-model", "node": None, "lag": 0},
]


def test_a_reason_is_a_column_where_all_of_them_fit_and_else_below_its_row() -> None:
    assert show.lines(RECORDS, ["it waits\n\x1b[31m", None], 80) == [
        "subscription                 node       lag  reason",
        "-" * 58,
        "totals                       node-1  12,345  it waits [31m",
        "a-long-name-of-a-read-model  -            0",
    ]
    assert show.lines(RECORDS, ["it waits for the database", None], 44) == [
        "subscription                 node       lag",
        "-" * 43,
        "totals                       node-1  12,345",
        "  it waits for the database",
        "a-long-name-of-a-read-model  -            0",
    ]


def test_a_long_name_goes_on_in_the_next_line() -> None:
    assert show.lines(RECORDS, None, 30) == [
        "subscription    node       lag",
        "-" * 30,
        "totals          node-1  12,345",
        "a-long-name-of  -            0",
        "-a-read-model",
    ]


@given(
    st.lists(st.tuples(st.text("ab-ä漢", min_size=1), st.text("xy \n"), st.integers(0, 10**9)), min_size=1),
    st.integers(40, 200),
)
def test_no_line_is_longer_than_the_terminal_and_nothing_is_lost(rows: list[tuple[str, str, int]], width: int) -> None:
    records = [{"name": name, "lag": lag} for name, _, lag in rows]
    found = show.lines(records, [reason for _, reason, _ in rows], width)
    assert all(cell_len(line) <= width for line in found)
    text = "".join("".join(found).split())
    for name, reason, _ in rows:
        assert all(text.count(letter) >= (name + reason).count(letter) for letter in "abä漢xy")


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(0, "0.0 s"), (119.94, "119.9 s"), (120, "2 min"), (7_199, "120 min"), (7_200, "2 h"), (172_800, "2 d")],
)
def test_a_span_is_told_in_one_unit(seconds: float, says: str) -> None:
    assert show.span(seconds) == says


@dataclass
class Row:
    """A number of which there may be more."""

    parked: int
    parked_more: bool
    any_more: str = "field"


@pytest.mark.parametrize("more", [False, True])
def test_a_number_that_is_the_least_has_a_plus_for_people_and_a_field_for_programs(
    capsys: pytest.CaptureFixture[str], *, more: bool
) -> None:
    row = Row(1000, more)
    seen = "1,000+" if more else "1,000"
    show.rows([row], json=False)
    head, _, line, *_ = [each for each in capsys.readouterr().out.splitlines() if each.strip()]
    assert (head.split(), line.split()) == (["parked", "any", "more"], [seen, "field"])
    show.record({"parked": 1000, "parked_more": more}, json=False)
    assert capsys.readouterr().out.split() == ["parked", seen]
    show.rows([row], json=True)
    assert orjson.loads(capsys.readouterr().out) == [{"parked": 1000, "parked_more": more, "any_more": "field"}]
