"""A pruned layer as sparse entries against the dense product: from which density that is faster.

One line per width, batch and density: median milliseconds of ``x W`` for a width x width kernel of
which every output keeps the same share of its inputs, called in turn, as dense product of masked
weights, ``sparse_multiply`` (rows sorted; then in row layout too), BCOO and BCSR. Inputs and
outputs have the batch where each of them wants it: last for the sparse ones. Building the entries
is not counted.
"""

from statistics import median

from benchmarks.lines import Lines
from benchmarks.runner import Benchmark, grid, program
from benchmarks.tables import markdown

WAYS = ("sorted", "row layout", "BCOO", "BCSR")
HEADS = ("width, batch", "dense, ms", *(f"{way}: faster up to" for way in WAYS))
SIZES = ((1024, 1), (1024, 128), (4096, 1), (4096, 128))
DENSITIES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)


def cells(width: int, batch: int, lines: Lines) -> list[str]:
    """Write the dense time, and the largest density at which each way is faster."""
    dense = median(line["milliseconds"]["dense"] for line in lines)
    row = [f"{width:,}, {batch}", f"{dense:.1f}"]
    for way in WAYS:
        faster = [
            line["density"]
            for line in lines
            if line["milliseconds"][way] < line["milliseconds"]["dense"]
        ]
        row.append(f"{100 * max(faster):g} %" if faster else "never")
    return row


def write(lines: Lines) -> str:
    """Write a row for every size."""
    rows = (cells(*size, lines.where(width=size[0], batch=size[1])) for size in SIZES)
    return markdown(HEADS, rows)


BENCHMARK = Benchmark(
    settings=lambda asked, lines: (
        {"width": width, "batch": batch, "density": density}
        for width, batch in SIZES
        for density in DENSITIES
    ),
    measure=program("masked_multiply"),
    tiny=list(grid(width=[20], batch=[2], density=[0.1])),
    table=write,
    repeats=21,
)
