"""Time and memory of each arrow and of the whole training step of the identity layer.

One line per size and stage: median milliseconds of the forward pass and of forward and gradient,
bytes of temporary memory as the compiler plans them, and for whole steps, many of which are one
dispatch, seconds of compilation and the peak memory of a process that does nothing else.
"""

from benchmarks.lines import Lines
from benchmarks.runner import Benchmark, grid, program
from benchmarks.tables import markdown

SIZES = (16, 64, 128, 256, 512, 1024, 2048, 4096)


def write(lines: Lines) -> str:
    """Write what a training step takes, by size."""
    steps = lines.where(stage="training step")
    rows = {
        "milliseconds": [f"{ms:.3g}" for ms in steps.values("gradient_ms")],
        "temporary memory, MiB": [f"{b / 2**20:.3g}" for b in steps.values("temporary_bytes")],
        "peak of the process, MiB": [
            f"{b / 2**20:.0f}" for b in steps.values("process_peak_bytes")
        ],
        "seconds of compilation": [f"{s:.1f}" for s in steps.values("compile_seconds")],
    }
    heads = ["n", *(f"{size:,}" for size in steps.values("size"))]
    return markdown(heads, ([name, *cells] for name, cells in rows.items()))


BENCHMARK = Benchmark(
    settings=lambda asked, lines: grid(size=SIZES),
    measure=program("stages"),
    tiny=[{"size": 8}],
    table=write,
    repeats=40,
)
