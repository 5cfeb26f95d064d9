"""Learn cells and values of a sparse matrix: which settings are exact on every seed?

A permutation of 64 inputs with random values, and 32 rows with 64 entries on random cells. From
random vectors and their products; error of the rounded matrix on 10,000 others.
"""

from collections.abc import Iterator
from statistics import median
from typing import Any

from benchmarks.lines import Facts, Lines
from benchmarks.runner import Asked, Benchmark, grid, program
from benchmarks.tables import Column, one, table

EVERY = 250
SIZES = {"permutation": 64, "random": 32}
"""Rows and columns, by the kind of matrix."""

MOVES = {"relocate_every": 50, "relocation_points": 8, "lost": 0.02, "moved_spread": -4.0}
TWICE = {"tuples_per_entry": 2, "sample_probability": 0.8, "rounded_from": 0.8}
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "twice the tuples, rounded passes": TWICE,
    "twice the tuples, rounded passes, moves": TWICE | MOVES | {"little": 0.05},
}
"""How it differs from the default of layers; see ``programs/free_values.py``."""


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give both matrices in all settings."""
    return grid(matrix=SIZES, setting=SETTINGS, seed=asked.seeds)


def exact(steps: list[int]) -> str:
    """Write from which step on runs are exact for good: the median and the last one."""
    return f"{median(steps):,g}, {max(steps):,}"


def ends(counts: list[int]) -> str:
    """Write the least and the largest number."""
    return " to ".join(str(count) for count in sorted({min(counts), max(counts)}))


def write(lines: Lines) -> str:
    """Write how many seeds are exact, and how far off the others end."""
    columns = [
        Column("tuples", "tuples", one()),
        Column("entries", "entries", one()),
        Column("steps", "steps", one(",")),
        Column(
            "seeds exact",
            lambda line: line["exact_from_step"] is not None,
            lambda found: f"{sum(found)} of {len(found)}",
        ),
        Column("exact from step (median, last)", "exact_from_step", exact),
        Column("entries found", "test_cells_found", ends),
        Column("largest error", "test_mse", lambda found: f"{max(found):.2g}"),
    ]
    rows = (
        ((matrix, setting), found)
        for matrix in SIZES
        for setting in SETTINGS
        if (found := lines.where(matrix=matrix, setting=setting))
    )
    return table(["matrix", "setting"], rows, columns)


BENCHMARK = Benchmark(
    settings=settings,
    measure=program("free_values"),
    tiny=[{"matrix": "random", "setting": list(SETTINGS)[-1], "seed": 0}],
    table=write,
    seeds=range(5),
)
