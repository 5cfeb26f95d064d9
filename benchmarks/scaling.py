"""Time and memory of a training step against the number of tuples: n tuples on n x n cells.

One line per way and size: median milliseconds of a step (batch 64, 4 global and 4 local points per
tuple, forward, gradient and Adam), bytes of temporary memory as the compiler plans them, and
seconds of compilation. The ways: the table of proportions at once, in blocks, nearby points only
(radius and capacities by ``fit_locality``, for the wide tuples at the start of training, of which
each may miss a thousandth), and for comparison a dense n x n matrix that is learned.
"""

from collections.abc import Iterator

from matplotlib.figure import Figure

from benchmarks.figures import against_size
from benchmarks.lines import Facts, Line, Lines
from benchmarks.runner import Asked, Benchmark, grid, program
from benchmarks.tables import Column, growth, one, table

WAYS = {
    "table at once": (2**10, "#fd8d3c"),
    "blocks": (2**13, "#4292c6"),
    "nearby": (2**17, "#005a32"),
    "dense matrix": (2**13, "#969696"),
}
"""Largest size, and colour."""

SHOWN = (2**8, 2**10, 2**12, 2**13, 100_000)


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give powers of two, and a round number for the way that gets so far."""
    for way, (largest, _) in WAYS.items():
        sizes = [2**power for power in range(4, largest.bit_length())]
        yield from grid(way=[way], size=sorted([*sizes, *([100_000] if way == "nearby" else [])]))


def time_and_memory(line: Line) -> str:
    """Write milliseconds and MiB with two or three digits that count, without an exponent."""
    numbers = (line["milliseconds"], line["temporary_bytes"] / 2**20)
    ms, mib = (f"{n:,.0f}" if n >= 100 else f"{n:.2g}" for n in numbers)
    return f"{ms} ms, {mib} MiB"


def grows(head: str, of: str) -> Column:
    """Fit the growth of a quantity over the last four sizes."""
    return Column(
        head,
        lambda line: (line["size"], line[of]),
        lambda points: growth(".1f")(sorted(points)[-4:]),
    )


def write(lines: Lines) -> str:
    """Write milliseconds and MiB of every way at chosen sizes, and how they grow."""
    columns = [Column(f"n = {n:,}", time_and_memory, one(), {"size": n}) for n in SHOWN]
    columns += [grows("time", "milliseconds"), grows("memory", "temporary_bytes")]
    return table(["way"], [([way], lines.where(way=way)) for way in WAYS], columns)


def draw(figure: Figure, lines: Lines) -> None:
    """Draw time and memory against the number of tuples."""
    curves = {}
    for way, (_, colour) in WAYS.items():
        found = Lines(sorted(lines.where(way=way), key=lambda line: line["size"]))
        mebibytes = [size / 2**20 for size in found.values("temporary_bytes")]
        numbers = (found.values("size"), found.values("milliseconds"), mebibytes)
        curves[way] = (*numbers, {"color": colour})
    labels = ("milliseconds per training step", "temporary memory, MiB")
    against_size(figure, curves, "tuples n, on n x n cells", labels)


BENCHMARK = Benchmark(
    settings=settings,
    measure=program("scaling"),
    tiny=list(grid(way=WAYS, size=[16])),
    table=write,
    draw=draw,
    figure="scaling",
    inches=(9.0, 3.8),
    repeats=20,
)
