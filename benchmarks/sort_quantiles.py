"""Soft quantiles beside the soft sort and exact quantiles, forward and gradient.

Of keys alone: the cheapest soft sort there is, five quantiles, the ten largest, and five quantiles
of each of a thousand lists. ``jnp.quantile`` is exact; its gradient goes to ten keys. Memory is
what the compiled program needs beyond inputs and outputs. Times are medians of interleaved calls,
shown as shares of the soft sort's (of as many lists, where there are lists).
"""

from benchmarks.lines import Line, Lines
from benchmarks.runner import Benchmark, grid, program
from benchmarks.tables import Column, one, table

SIZES = (2**12, 2**17)


def write(lines: Lines) -> str:
    """Write MiB, and time as a share of the soft sort's."""

    def mebibytes(line: Line) -> float:
        return line["bytes"] / 2**20

    columns = [
        Column(f"{head}, n = 2^{n.bit_length() - 1}", of, one(spec), {"n": n})
        for n in SIZES
        for head, of, spec in (("time", "ratio", ".2f"), ("MiB", mebibytes, ".1f"))
    ]
    rows = (([method], lines.where(method=method)) for method in lines.each("method"))
    return table(["method"], rows, columns)


BENCHMARK = Benchmark(
    settings=lambda asked, lines: grid(n=SIZES),
    measure=program("sort_quantiles"),
    tiny=[{"n": 64}],
    table=write,
    repeats=31,
)
