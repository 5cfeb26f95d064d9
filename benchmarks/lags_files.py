"""Which lags does the recipe ``lags`` find in files whose lags are known, and which in vain?

Runs of ``sparse-hyper lags --task csv``, 300 steps, the number of lags left to the data, one model
per run, on files of 6,000 rows among which are such as fool a search
(``programs/lag_files.py``). Nothing was tuned for any of them.
"""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark, grid
from benchmarks.tables import Column, spread, table

FILES: dict[str, tuple[int, ...]] = {
    "a vessel: delays of two inputs": (1, 12, 31),
    "a product without a linear part": (5, 20),
    "inputs with a period of 24": (3,),
    "unrelated, white": (),
    "unrelated, slow": (),
}
"""Their true lags."""


def measure(facts: Facts, asked: Asked) -> Line:
    """Train once."""
    from benchmarks.programs.lag_files import write

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "series.csv"
        options: dict[str, Any] = {"inputs": write(path, facts["file"], facts["seed"])}
        options |= {"task": "csv", "data_file": path, "targets": ("target",)}
        line = train("lags", asked, seed=facts["seed"], reach=64, restarts=1, steps=300, **options)
    line.pop("data_file", None)  # where it was is nobody's concern
    return line


def found(line: Line) -> list[int]:
    """Give the lags that the model reads, the most important first."""
    return line["lags"][:5]


def share(line: Line) -> float:
    """Give the test loss as a share of that of predicting the mean of training."""
    return line["test_mse"] / line["test_mse_of_mean"]


def seed_by_seed(values: list[list[int]]) -> str:
    """Write lists of lags."""
    return "; ".join(", ".join(map(str, lags)) or "none" for lags in values)


def write(lines: Lines) -> str:
    """Write losses and lags, file by file."""
    columns = [
        Column("seeds", "seed", lambda seeds: f"{len(seeds)}"),
        Column("first five lags found, by importance", found, seed_by_seed),
        Column("test loss / that of the mean", share, spread(".3f")),
    ]
    rows = (
        ([file, ", ".join(map(str, FILES[file])) or "none"], chosen)
        for file in FILES
        if (chosen := lines.where(file=file))
    )
    return table(["file", "true lags"], rows, columns)


BENCHMARK = Benchmark(
    settings=lambda asked, lines: grid(seed=asked.seeds, file=FILES),
    measure=measure,
    tiny=[{"seed": 0, "file": "inputs with a period of 24"}],
    table=write,
    seeds=range(1),
)
