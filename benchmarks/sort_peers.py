"""The same operations by softjax and ott: do they agree with ours, and what do they cost?

Sort, ranks, median and the eight largest of n normal numbers, ascending, with softness 0.1 and no
scaling; value and gradient of half the mean of squares. Where a library has the same definition
(SoftSort's, which softjax offers among others), both are compared, relative to the largest. ott has
another one, by optimal transport, here in 500 unrolled iterations, as implicit differentiation
failed; it is timed up to 512 numbers. What takes n^2 operations is compiled for 2**17 numbers, to
see its memory, and not run. Needs ``pip install -e ".[peers]"``, Python >= 3.12.
"""

from collections.abc import Iterator
from typing import Any

from benchmarks.lines import Facts, Line, Lines
from benchmarks.runner import Asked, Benchmark, grid, program
from benchmarks.tables import markdown

OPERATIONS = ("sort", "ranks", "median", "largest")
SIZES = (2**6, 2**9, 2**12, 2**17)
SAME = "softjax softsort"
LIBRARIES = ("here", SAME, "softjax neuralsort", "ott")


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give every operation at every size; all libraries are measured in turn."""
    yield from grid(n=SIZES, operation=OPERATIONS, largest_of_ott=[512])


def cell(line: Line) -> str:
    """Write milliseconds and MiB, or the memory that it would need."""
    memory = f"{line['bytes'] / 2**20:,.3g} MiB"
    return f"{line['milliseconds']:.3g} ms, {memory}" if "milliseconds" in line else f"({memory})"


def differences(lines: Lines) -> str:
    """Write by how much values and slopes differ at most, over the sizes."""
    found = [
        max(line["difference"], line["slope difference"])
        for line in lines
        if "milliseconds" in line
    ]
    return f"{max(found):.0e}" if found else "-"


def write(lines: Lines) -> str:
    """Write a row per operation and library."""
    rows: list[list[Any]] = []
    for operation in OPERATIONS:
        for library in LIBRARIES:
            found = lines.where(operation=operation, library=library)
            if found:
                by_size = {line["n"]: cell(line) for line in found}
                same = differences(found) if library == SAME else "-"
                rows.append([operation, library, same, *(by_size.get(n, "-") for n in SIZES)])
    heads = ["operation", "by", "differs by at most"]
    return markdown([*heads, *(f"n = {n:,}" for n in SIZES)], rows)


BENCHMARK = Benchmark(
    settings=settings,
    measure=program("sort_peers"),
    tiny=[{"n": 16, "operation": "ranks", "largest_of_ott": 0}],
    table=write,
)
