"""The multiply against BCOO, scipy's CSR and a dense product, forward and with its gradients.

One line per size, number of entries and batch: median milliseconds of ``W x`` for an n x n matrix
that a batch shares, and of value and gradient with respect to the entries and ``x`` (dense: the
whole matrix and ``x``), called in turn. Building the formats is not counted; the dense product is
left out where its matrix has more than 2**24 cells. The entries are sorted by row and distinct,
which only BCOO is told.
"""

from benchmarks.lines import Line
from benchmarks.runner import Benchmark, grid, program
from benchmarks.tables import markdown

SIZES, COUNTS = (1_000, 10_000, 100_000), (1_000, 10_000, 100_000, 1_000_000)
HEADS = (
    *("n x n, entries, batch", "forward, ms", "BCOO", "scipy CSR", "dense"),
    *("with gradients, ms", "BCOO", "dense"),
)


def cells(line: Line) -> list[str]:
    """Write our milliseconds, and how many times as long the others take."""
    written = [f"{line['size']:,}, {line['entries']:,}, {line['batch']}"]
    for kind, others in (
        ("forward", ("bcoo", "scipy_csr", "dense")),
        ("gradient", ("bcoo", "dense")),
    ):
        times = line[f"{kind}_ms"]
        ours = times["sparse_multiply"]
        written.append(f"{ours:.3g}")
        written += [f"x {times[name] / ours:.2g}" if name in times else "-" for name in others]
    return written


BENCHMARK = Benchmark(
    settings=lambda asked, lines: grid(size=SIZES, entries=COUNTS, batch=[64]),
    measure=program("multiply"),
    tiny=[{"size": 50, "entries": 100, "batch": 2}],
    table=lambda lines: markdown(HEADS, map(cells, lines)),
    repeats=30,
)
