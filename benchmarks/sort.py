"""Sort held-out digits after training on order alone: lengths and seeds.

Runs of the recipe ``sort``, with bundled digits or, with ``--mnist DIR``, with MNIST: exact and
element-wise match on sequences of test digits, and wall-clock seconds, of one core each.
"""

from benchmarks.lines import Facts, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark
from benchmarks.tables import Column, percent, table

BUNDLED: Facts = {"data": "digits", "n": 4, "steps": 5_000}
MNIST: Facts = {"data": "mnist", "n": 8, "steps": 15_000, "batch": 32, "warp": 1.25}
MATCHES = (
    Column("whole sequence right", "test_exact_match", percent()),
    Column("elements right", "test_element_match", percent()),
)


def settings(asked: Asked, lines: Lines) -> list[Facts]:
    """Give the seeds of one data set."""
    return [(MNIST if asked.mnist else BUNDLED) | {"seed": seed} for seed in asked.seeds]


def write(lines: Lines) -> str:
    """Write exact and element-wise match on test digits."""
    rows = (
        ((kind, of["n"], f"{of['steps']:,}"), lines.where(**of))
        for kind, of in (("bundled, 8 x 8", BUNDLED), ("MNIST", MNIST))
    )
    return table(["digits", "n", "steps"], rows, MATCHES)


BENCHMARK = Benchmark(
    settings=settings,
    measure=lambda facts, asked: train("sort", asked, seconds=True, **facts),
    tiny=[BUNDLED | {"seed": 0, "steps": 2}],
    table=write,
)
