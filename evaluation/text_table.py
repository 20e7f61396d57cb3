"""Tables as lines of plain text, for a terminal of any width."""

from collections.abc import Sequence
from dataclasses import dataclass

from errors import printable

GAP = 2  # spaces between columns
LEAST = 6  # characters to which texts are cut, at most


@dataclass
class _Column:
    heading: str
    number: bool  # aligned right
    cells: list[str]
    width: int = 0

    def __post_init__(self):
        self.width = max(map(len, [self.heading, *self.cells]))

    def show(self, cell: str) -> str:
        """The cell in the column's width, cut if it is longer."""
        cell = cell if len(cell) <= self.width else cell[: self.width - 1] + "…"
        return cell.rjust(self.width) if self.number else cell.ljust(self.width)


def text_table(content: dict, width: int = 0, spare: Sequence[str] = ()) -> list[str]:
    """The lines of a table that `evaluation.report.table` made: the headings, then the rows.

    If they are wider than `width` characters (0: no limit), the columns with the headings in `spare` are left out, the
    first one first, until the others fit; a last line names them. If that is not enough, the longest texts are cut.
    """
    columns = [
        _Column(printable(heading), kind == "number", [printable(row[i]) for row in content["rows"]])
        for i, (heading, kind) in enumerate(content["columns"])
    ]
    left_out = []
    for heading in spare if width else ():
        fitting = [column for column in columns if column.heading != heading]
        if _total(columns) > width and len(fitting) < len(columns):
            columns = fitting
            left_out.append(heading)
    while width and _total(columns) > width:
        longest = max((column for column in columns if not column.number), key=lambda c: c.width, default=None)
        if longest is None or longest.width <= LEAST:
            break
        longest.width -= 1
    rows = zip(*([column.heading, *column.cells] for column in columns), strict=True)
    gap = " " * GAP
    lines = [gap.join(c.show(cell) for c, cell in zip(columns, row, strict=True)).rstrip() for row in rows]
    if left_out:
        lines.append(f"(too narrow for: {', '.join(left_out)})")
    return lines


def _total(columns: Sequence[_Column]) -> int:
    return sum(column.width for column in columns) + GAP * (len(columns) - 1)
