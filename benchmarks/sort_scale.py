"""Time and memory of differentiable sorts, forward and gradient, against the number of elements.

Keys and a payload of 16 numbers per element are sorted in ascending order; the gradient goes to
both. The peer, where it is installed (``pip install -e ".[peers]"``, Python >= 3.12), is softjax:
two methods, a matrix each. (ott-jax is left out: its transport of 256 elements was not done after
40 seconds.) Each method goes up to the size at which it would take more than 4 GiB. Memory is what
the compiled program needs beyond its inputs and outputs; times are medians of interleaved calls.
The last setting is a batch of lists of images, with the gradient for the keys.
"""

from matplotlib.figure import Figure

from benchmarks.figures import COLOURS, against_size
from benchmarks.lines import Line, Lines
from benchmarks.runner import Benchmark, grid, program
from benchmarks.tables import Column, growth, one, table

SIZES = tuple(2**power for power in (4, 8, 10, 12, 14, 17, 20))
IMAGES = {"batch": 64, "n": 128, "width": 784}
SHOWN = (2**8, 2**12, 2**17, 2**20)


def along_sizes(lines: Lines) -> dict[str, Lines]:
    """Give what was measured of every method along the sizes."""
    found = Lines(line for line in lines if "batch" not in line and line["milliseconds"])
    return {method: found.where(method=method) for method in lines.each("method")}


def time_and_memory(line: Line) -> str:
    """Write milliseconds and MiB."""
    return f"{line['milliseconds']:,.1f} ms, {line['bytes'] / 2**20:,.1f} MiB"


def grows(points: list[tuple[int, float]]) -> str:
    """Fit the growth of time from 2**12 on."""
    return growth(".2f")([point for point in points if point[0] >= 2**12])


def write(lines: Lines) -> str:
    """Write milliseconds and MiB at chosen sizes; and the milliseconds of the sort of images."""
    columns = [
        *(Column(f"n = 2^{n.bit_length() - 1}", time_and_memory, one(), {"n": n}) for n in SHOWN),
        Column("grows as", lambda line: (line["n"], line["milliseconds"]), grows),
    ]
    rows = (([method], found) for method, found in along_sizes(lines).items())
    images = lines.where(**IMAGES)
    milliseconds = Column(
        "batch 64, n = 128, width 784", lambda line: f"{line['milliseconds']:,.0f} ms", one()
    )
    image_rows = (([line["method"]], Lines([line])) for line in images)
    return "\n\n".join(
        [table(["method"], rows, columns), table(["method"], image_rows, [milliseconds])]
    )


def draw(figure: Figure, lines: Lines) -> None:
    """Draw time and memory against the number of elements."""
    curves = {}
    for (method, found), colour in zip(along_sizes(lines).items(), COLOURS, strict=False):
        mebibytes = [max(size, 1) / 2**20 for size in found.values("bytes")]
        style = {"color": colour, "linewidth": 2.4 if method == "soft_sort" else 1.2}
        curves[method] = (found.values("n"), found.values("milliseconds"), mebibytes, style)
    against_size(figure, curves, "elements", ("milliseconds", "MiB beyond inputs and outputs"))


BENCHMARK = Benchmark(
    settings=lambda asked, lines: [*grid(n=SIZES), IMAGES],
    measure=program("sort_scale"),
    tiny=[{"n": 8}, {"batch": 2, "n": 4, "width": 3}],
    table=write,
    draw=draw,
    figure="sort_scale",
    inches=(9.0, 3.8),
    repeats=9,
)
