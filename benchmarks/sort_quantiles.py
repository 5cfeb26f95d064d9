"""Soft quantiles beside the soft sort and exact quantiles, forward and gradient.

Of keys alone: the cheapest soft sort there is, five quantiles, the ten largest, and five quantiles
of each of a thousand lists. ``jnp.quantile`` is exact; its gradient goes to ten keys. Memory is
what the compiled program needs beyond inputs and outputs; times are medians of interleaved calls.
"""

from benchmarks.lines import Line, Lines
from benchmarks.runner import Benchmark, grid, program
from benchmarks.tables import Column, one, table

SIZES = (2**12, 2**17)


def write(lines: Lines) -> str:
    """Write milliseconds, MiB, and how long the soft sort takes in comparison."""

    def time_and_memory(line: Line) -> str:
        return f"{line['milliseconds']:,.2f} ms, {line['bytes'] / 2**20:,.1f} MiB"

    columns = [
        *(Column(f"n = 2^{n.bit_length() - 1}", time_and_memory, one(), {"n": n}) for n in SIZES),
        *(
            Column(f"of soft_sort, 2^{n.bit_length() - 1}", "ratio", one(".2f"), {"n": n})
            for n in SIZES
        ),
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
