"""How much memory does the gradient of a recurrence need? Plain, checkpointed and nested scans.

A GRU of 64 units reads T steps of 64 rows; the loss is the sum of squares of all its states. One
line per length and scan: bytes of temporary memory as the compiler plans them, and median
milliseconds of value and gradient. The internal scan of Equinox is measured where it is installed.
"""

from typing import Any

from benchmarks.lines import Line, Lines
from benchmarks.runner import Benchmark, grid, program
from benchmarks.tables import markdown

LENGTHS = (64, 256, 1024)
SCANS = (
    "plain scan",
    "checkpointed body",
    "checkpointed_scan",
    "Equinox, root of T checkpoints",
    "Equinox, 8 checkpoints",
)


def write(lines: Lines) -> str:
    """Write memory and time by length, a row per scan."""

    def cell(scan: str, length: int, of: Any) -> str:
        found = lines.where(scan=scan, length=length)
        return of(found[0]) if found else "-"

    def mebibytes(line: Line) -> str:
        return f"{line['temporary_bytes'] / 2**20:.3g}"

    def times(line: Line) -> str:
        plain = lines.where(scan=SCANS[0], length=line["length"])[0]
        return f"{line['gradient_ms'] / plain['gradient_ms']:.2f}"

    heads = [
        "scan",
        *(f"MiB, T = {length:,}" for length in LENGTHS),
        *(f"time / plain, T = {length:,}" for length in LENGTHS),
    ]
    rows = [
        [scan, *(cell(scan, length, of) for of in (mebibytes, times) for length in LENGTHS)]
        for scan in SCANS
        if lines.where(scan=scan)
    ]
    return markdown(heads, rows)


BENCHMARK = Benchmark(
    settings=lambda asked, lines: grid(length=LENGTHS),
    measure=program("recurrent_memory"),
    tiny=[{"length": 9}],
    table=write,
)
