"""Markdown tables of lines: a row for some lines, columns that say what they read and how."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np

from benchmarks.lines import Line, Lines

Write = Callable[[list[Any]], str]
"""Writes the values that the lines of a cell have; there is at least one."""


class Column(NamedTuple):
    """One column."""

    head: str
    of: str | Callable[[Line], Any]
    """A field, or a function of a line; None where there is nothing."""

    write: Write
    where: Mapping[str, Any] = {}
    """Facts of the lines that count, of those of the row."""

    def cell(self, lines: Lines) -> str:
        """Write the cell of a row; a dash if there is nothing, or all diverged."""
        chosen = (line for line in lines.where(**self.where) if "diverged" not in line)
        read = (lambda line: line.get(self.of)) if isinstance(self.of, str) else self.of
        values = [value for value in map(read, chosen) if value is not None]
        return self.write(values) if values else "-"


def table(
    names: Sequence[str], rows: Iterable[tuple[Sequence[Any], Lines]], columns: Sequence[Column]
) -> str:
    """Write a table: columns that name a row, and columns that are read from its lines.

    Args:
        names: heads of the columns that name a row.
        rows: names and lines of every row.
        columns: the others.

    Returns:
        the table.
    """
    heads = [*names, *(column.head for column in columns)]
    return markdown(
        heads, ([*row, *(column.cell(lines) for column in columns)] for row, lines in rows)
    )


def markdown(heads: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Write a table of cells that are there already."""
    written = [f"| {' | '.join(map(str, row))} |" for row in (heads, *rows)]
    return "\n".join([written[0], "|---" * len(heads) + "|", *written[1:]])


def one(spec: str = "") -> Write:
    """Write the first value in a format."""
    return lambda values: format(values[0], spec)


def spread(spec: str, spec_of_spread: str | None = None) -> Write:
    """Write mean ± standard deviation over the seeds."""

    def write(values: list[float]) -> str:
        if len(values) == 1:
            return format(values[0], spec)
        return f"{mean(values):{spec}} ± {stdev(values):{spec_of_spread or spec}}"

    return write


def ends(spec: str) -> Write:
    """Write the mean, and the least and the largest value if they differ."""

    def write(values: list[float]) -> str:
        mean, least, most = (
            format(value, spec) for value in (sum(values) / len(values), min(values), max(values))
        )
        return mean if least == most else f"{mean} ({least} to {most})"

    return write


def percent(digits: int = 1, *, span: bool = True) -> Write:
    """Write shares in per cent: mean ± standard deviation, and (lowest to highest)."""

    def write(shares: list[float]) -> str:
        runs = [100 * share for share in shares]
        ends = f" ({min(runs):.{digits}f} to {max(runs):.{digits}f})"
        return spread(f".{digits}f")(runs) + (ends if span and len(runs) > 1 else "")

    return write


def growth(spec: str) -> Write:
    """Fit the power of n with which pairs of n and a quantity grow; they need not be sorted."""

    def write(points: list[tuple[float, float]]) -> str:
        if len(points) < 2:
            return "-"
        sizes, quantities = np.log(np.array(sorted(points))).T
        return f"n^{np.polyfit(sizes, quantities, 1)[0]:{spec}}"

    return write


def bias(report: Mapping[str, float], spec: str) -> str:
    """Write the bias of a gradient, or that none was seen above twice the noise."""
    if report["bias"] > 2 * report["noise"]:
        return format(report["bias"], spec)
    return f"none seen (noise {report['noise']:.1g})"
