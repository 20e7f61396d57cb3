"""Tables as text: aligned, and not wider than the terminal if that is possible."""

import pytest

from evaluation.report import table
from evaluation.text_table import text_table

ROWS = [{"run": "a long name of a run", "steps": 12, "note": "x"}, {"run": "b", "steps": 3450, "note": "yy"}]


def lines(**options) -> list[str]:
    return text_table(table(ROWS, {}, {}), **options)


def test_texts_are_aligned_left_and_numbers_right():
    assert lines() == [
        "run                   steps  note",
        "a long name of a run     12  x",
        "b                      3450  yy",
    ]


def test_spare_columns_are_left_out_one_after_the_other_and_named():
    assert lines(width=33, spare=("note", "steps")) == lines()
    assert lines(width=32, spare=("note", "steps"))[0] == "run                   steps"
    assert lines(width=32, spare=("note", "steps"))[-1] == "(too narrow for: note)"
    assert lines(width=26, spare=("note", "steps"))[-1] == "(too narrow for: note, steps)"
    assert lines(width=26, spare=("absent", "note"))[-1] == "(too narrow for: note)"


@pytest.mark.parametrize("width", (20, 26, 32))
def test_long_texts_are_cut_to_fit(width):
    found = lines(width=width)
    assert max(map(len, found)) == width and found[1].split()[-2:] == ["12", "x"] and "…" in found[1]


def test_a_terminal_too_narrow_for_anything_still_gets_the_numbers():
    found = lines(width=5)
    assert [line.split()[-2] for line in found] == ["steps", "12", "3450"] and "a lon…" in found[1]


def test_control_characters_are_printed_as_text():
    assert text_table({"columns": [("a", "text")], "rows": [["\x1b[2J\n"]]}) == ["a", "\\x1b[2J\\n"]


def test_no_rows_leave_the_headings():
    assert text_table({"columns": [("a", "text"), ("b", "number")], "rows": []}) == ["a  b"]
