"""Columns of numbers from a CSV file that somebody else wrote.

The first line names the columns. Cells are separated by commas, semicolons or tabs, whichever the
first line holds most of; they may be quoted; the file may be packed by gzip, and begin with the
mark that spreadsheets put before UTF-8. Nothing is guessed beyond that: a cell that is no number
is told with file, line and column, and so is a row with more or fewer cells than the first.
"""

import csv
import difflib
import io
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from sparse_hyper_jax.checks import check_choice, require
from sparse_hyper_jax.train.reading import read_bytes, reading

KIND, CHANGE = "CSV file in UTF-8", "restore the file, or save it as CSV in UTF-8"
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
MISSING = frozenset({"", "-", "?", "na", "n/a", "nan", "null", "none"})
"""Cells that say that there is no value, in small letters."""

DECIMAL_COMMA = re.compile(r"[+-]?\d+(\.\d{3})*,\d+([eE][+-]?\d+)?")
LARGEST = 1e100
"""Beyond this the square of a number could not be summed."""

NAMED_AT_MOST = 12


class Table(NamedTuple):
    """Columns of a file.

    Attributes:
        names: of the columns, in the order in which they were asked for.
        values: ``(rows, columns)`` float64, finite.

    Example:
        >>> from sparse_hyper_jax.train.data import Table
        >>> Table(("flow", "level"), np.zeros((5, 2))).values.shape
        (5, 2)
    """

    names: tuple[str, ...]
    values: np.ndarray


class _Row(NamedTuple):
    line: int
    cells: list[str]


def read_table(
    path: str | Path,
    columns: Sequence[str] | None = None,
    *,
    missing: Literal["refuse", "previous"] = "refuse",
) -> Table:
    r"""Read columns of a CSV file by their names.

    Args:
        path: the file, packed if its name ends in ``.gz``.
        columns: names as in the first line, in any order; None for all.
        missing: what becomes of a cell without a value (empty, ``NA``, ``nan`` and the like): it is
            refused, or takes the value of the row before, as one would who has to act at that time.

    Returns:
        :class:`Table`.

    Raises:
        ValueError: no such column, or two; a cell that is no finite number; a row of another
            length; no row; no text.
        OSError: the system refuses the file.

    Example:
        >>> from pathlib import Path
        >>> from sparse_hyper_jax.train.data import read_table
        >>> size = Path("pump.csv").write_text("time;flow;level\n8:00;1.5;3\n9:00;2.5;4\n")
        >>> read_table(Path("pump.csv"), ["level", "flow"]).values.tolist()
        [[3.0, 1.5], [4.0, 2.5]]
    """
    check_choice("missing", missing, ("refuse", "previous"))
    path = Path(path)
    content = read_bytes(path, KIND, CHANGE)
    with reading(path, KIND, CHANGE):
        text = content.decode("utf-8-sig")
    delimiter = _delimiter(text)
    rows = list(_rows(path, text, delimiter))
    require(len(rows) > 0, f"no line in {path}", "names of columns, and rows of numbers", CHANGE)
    names = [cell.strip() for cell in rows[0].cells]
    _check_names(path, names, rows[0].line)
    _check_lengths(path, rows, delimiter)
    places = _places(path, names, columns)
    require(
        len(rows) > 1, f"no row below the names in {path}", "rows of numbers", "pass another file"
    )
    values = [_column(path, rows[1:], place, names[place], missing) for place in places]
    return Table(tuple(names[place] for place in places), np.stack(values, axis=1))


def _delimiter(text: str) -> str:
    first = next((line for line in text.splitlines() if line.strip()), "")
    return max(DELIMITERS, key=lambda one: len(next(csv.reader([first], delimiter=one), [])))


def _rows(path: Path, text: str, delimiter: str) -> Iterator[_Row]:
    lines = list(io.StringIO(text, newline=""))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    begun, empty = False, 0
    while True:
        line = reader.line_num + 1  # a quoted cell may go over several lines
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(
                f"found {error} in {path}, from line {line} on; expected cells separated by"
                f" {DELIMITERS[delimiter]}; close the quotes there, or remove them"
            ) from error
        # A cell of two quotes is a gap, and no empty line.
        if len(cells) < 2 and not "".join(lines[line - 1 : reader.line_num]).strip():
            empty = empty or line
            continue
        require(
            not (begun and empty),
            f"an empty line {empty} in {path}, with rows after it",
            "rows one after another, at equal distances in time",
            "remove the line, or fill it in",
        )
        begun, empty = True, 0
        yield _Row(line, cells)


def _check_names(path: Path, names: Sequence[str], line: int) -> None:
    require(
        not all(_number(name) is not None for name in names),
        f"only numbers in {path}, line {line}: {_some(names)}",
        "names of the columns in the first line",
        "write a line of names above the numbers",
    )


def _check_lengths(path: Path, rows: Sequence[_Row], delimiter: str) -> None:
    want = len(rows[0].cells)
    commas = ", quote cells that hold a comma, write decimal points" if delimiter == "," else ""
    for row in rows:
        require(
            len(row.cells) == want,
            f"{len(row.cells)} cells in {path}, line {row.line}",
            f"{want}, separated by {DELIMITERS[delimiter]}, as in its first line",
            f"complete or remove the line{commas}",
        )


def _places(path: Path, names: Sequence[str], columns: Sequence[str] | None) -> list[int]:
    wanted = list(names) if columns is None else list(columns)
    require(len(wanted) > 0, f"no column asked for of {path}", "one at least", "name some, or None")
    require(
        "" not in wanted,
        f"a column without a name in {path}" if columns is None else f"columns {_some(wanted)}",
        "columns that have names",
        "name it in the first line, or choose others, with --inputs",
    )
    for name in wanted:
        require(name in names, f"no column {name!r} in {path}", _expected(name, names), "change it")
        require(
            names.count(name) == 1,
            f"{names.count(name)} columns {name!r} in {path}",
            "one column of each name",
            "rename or remove the others in the first line",
        )
        require(
            wanted.count(name) == 1,
            f"column {name!r} asked for twice",
            "each once",
            "leave one out",
        )
    return [names.index(name) for name in wanted]


def _expected(name: str, names: Sequence[str]) -> str:
    folded = {one.casefold(): one for one in names}
    near = difflib.get_close_matches(name.casefold(), folded, n=3)
    if near:
        return "a column that there is, perhaps " + " or ".join(repr(folded[one]) for one in near)
    return f"one of {_some([one for one in names if one])}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    return ", ".join(repr(name)[:40] for name in names[:NAMED_AT_MOST]) + more


def _number(cell: str) -> float | None:
    # Python would take 1_000 for a number, and a spreadsheet for a text.
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _column(path: Path, rows: Sequence[_Row], place: int, name: str, missing: str) -> np.ndarray:
    gaps = {n for n, row in enumerate(rows) if row.cells[place].strip().casefold() in MISSING}
    if gaps:
        _check_gaps(path, rows[min(gaps)], place, name, count=len(gaps), missing=missing)
        require(
            0 not in gaps,
            f"no value in {path}, line {rows[0].line}, column {name!r}, the first row",
            "a value to begin with, from which later gaps are filled",
            "remove the first rows, up to one without a gap",
        )
    values = np.empty(len(rows))
    for number, row in enumerate(rows):
        if number in gaps:
            values[number] = values[number - 1]
        else:
            values[number] = _finite(path, row, place, name)
    return values


def _check_gaps(path: Path, row: _Row, place: int, name: str, *, count: int, missing: str) -> None:
    cell = row.cells[place].strip()
    what = repr(cell) if cell else "an empty cell"
    among = f", one of {count} without a value" if count > 1 else ""
    require(
        missing == "previous",
        f"{what} in {path}, line {row.line}, column {name!r}{among}",
        "a number",
        "fill it in, or pass --missing previous to take the value of the row before",
    )


def _finite(path: Path, row: _Row, place: int, name: str) -> float:
    cell = row.cells[place].strip()
    value = _number(cell)
    if value is not None and math.isfinite(value) and abs(value) <= LARGEST:
        return value
    where = f"{cell!r:.60} in {path}, line {row.line}, column {name!r}"
    require(
        not DECIMAL_COMMA.fullmatch(cell),
        where,
        "a number with a decimal point",
        "write points for decimals, and no marks between thousands",
    )
    change = "correct it, or choose columns of numbers, with --inputs"
    require(value is not None, where, "a number", change)
    raise ValueError(f"found {where}; expected a finite number, of at most {LARGEST:g}; {change}")
