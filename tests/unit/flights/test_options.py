"""The command line refuses in one line what cannot work."""

from __future__ import annotations

import pytest

from examples.flights.options import parse
from examples.flights.source import TOTAL


@pytest.mark.parametrize(
    "arguments",
    [
        ["--unknown"],
        ["--flights", "many"],
        ["--flights", "0"],
        ["--flights", str(TOTAL + 1)],
        ["--flights", "500", "--all"],
        ["--nodes", "0"],
        ["--nodes", "1"],
        ["surplus"],
    ],
)
def test_bad_input_is_answered_in_one_line_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        parse(arguments)
    assert exit.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


def test_an_output_folder_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "report").write_text("")
    with pytest.raises(SystemExit):
        parse(["--out", str(tmp_path / "report")])
    assert "is not a folder" in capsys.readouterr().err


def test_all_takes_the_whole_year():
    assert parse(["--all"]).flights == TOTAL


def test_a_single_node_is_fine_when_none_is_killed():
    assert parse(["--nodes", "1", "--no-kill"]).nodes == 1
