"""What does powerpropagation add to sparse training? MNIST, 784-300-100-10, densities by ERK.

Runs of the recipe ``powerprop`` with a sparse method: test accuracy of the final masked weights.
Learning rate, alpha and first size of grown weights were chosen by validation accuracy with RigL at
5 %, seed 100, 10,000 steps.
"""

from collections.abc import Iterator
from itertools import product

from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark
from benchmarks.tables import Column, markdown, percent

ROWS = tuple(product(("dense", "set", "rigl", "top-kast", "magnitude"), (1.0, 3.0)))
"""Method and alpha."""

COLUMNS = ((0.2, 10_000), (0.1, 10_000), (0.05, 10_000), (0.02, 10_000), (0.05, 50_000))
"""Density and steps."""

RATE = 0.3


def columns_of(method: str) -> tuple[tuple[float, int], ...]:
    """Give densities and steps of a row."""
    return ((1.0, COLUMNS[0][1]),) if method == "dense" else COLUMNS


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give all rows and columns of every seed."""
    for seed in asked.seeds if asked.mnist else ():
        for method, alpha in ROWS:
            for density, steps in columns_of(method):
                row = {"method": method, "alpha": alpha, "seed": seed}
                yield {"asked": density, "steps": steps, **row}


def measure(facts: Facts, asked: Asked) -> Line:
    """Train once; the density that was asked for is reached but roughly."""
    options = {"density" if name == "asked" else name: value for name, value in facts.items()}
    if facts["method"] == "dense":
        del options["density"]
    options |= {"learning_rate": RATE, "data": "mnist", "evaluate_every": 5_000}
    return train("powerprop", asked, **options)


def cell(lines: Lines, density: float, steps: int) -> str:
    """Write test accuracies, and how many runs diverged."""
    where = {"asked": density, "steps": steps}
    failed = len(lines.where(**where).having("diverged"))
    written = Column("", "test_accuracy", percent(2), where).cell(lines)
    return written + (f", {failed} diverged" if failed else "")


def write(lines: Lines) -> str:
    """Write test accuracies, rows with and without powerpropagation in turn."""
    rows = []
    for method, alpha in ROWS:
        found = lines.where(method=method, alpha=alpha)
        cells = [cell(found, *column) for column in columns_of(method)]
        rows.append([method, f"{alpha:g}", *cells, *[""] * (len(COLUMNS) - len(cells))])
    names = [f"{100 * density:g} %, {steps:,} steps" for density, steps in COLUMNS]
    return markdown(["method", "alpha", *names], rows)


BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=[
        {"asked": 0.5, "steps": 2, "method": method, "alpha": 3.0, "seed": 0}
        for method in ("rigl", "magnitude")
    ],
    table=write,
)
