"""Time and memory of reading windows from images, forward and gradient.

A batch of 64 images of 100 x 100 pixels; gradients for the boxes and for the variances. The sampled
readers use 8 local and 8 global points per pixel, 20 points with the neighbours. Times are medians
of interleaved calls; memory is what the compiled program needs beyond its inputs and outputs.
"""

from benchmarks.lines import Facts, Lines
from benchmarks.runner import Benchmark, program
from benchmarks.tables import Column, table

SHAPES = {
    "1 of 32 x 32": {"glimpses": 1, "window": 32, "channels": 1},
    "8 of 12 x 12": {"glimpses": 8, "window": 12, "channels": 1},
    "1 of 32 x 32, 3 channels": {"glimpses": 1, "window": 32, "channels": 3},
}


def column(head: str, shape: Facts, lines: Lines) -> Column:
    """Write milliseconds, their ratio to bilinear sampling, which comes first, and MiB."""
    bilinear = lines.where(**shape)[0]["milliseconds"]

    def write(found: Lines) -> str:
        ms, mebibytes = found[0]["milliseconds"], found[0]["mebibytes"]
        return f"{ms:.1f} ms (x {ms / bilinear:.1f}), {mebibytes} MiB"

    return Column(head, lambda line: line, write, shape)


def write(lines: Lines) -> str:
    """Write a row per reader, a column per shape."""
    columns = [column(head, shape, lines) for head, shape in SHAPES.items()]
    rows = (([reader], lines.where(reader=reader)) for reader in lines.each("reader"))
    return table(["reader"], rows, columns)


BENCHMARK = Benchmark(
    settings=lambda asked, lines: SHAPES.values(),
    measure=program("glimpse"),
    tiny=[{"glimpses": 1, "window": 4, "channels": channels} for channels in (1, 3)],
    table=write,
)
