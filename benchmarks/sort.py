"""Sort held-out digits after training on order alone: lengths and seeds.

    python benchmarks/sort.py [--mnist DIR]

One JSON line per run of the recipe ``sort``: exact and element-wise match on sequences of test
digits, and its wall-clock seconds. Runs go one after the other, so that the seconds mean something.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from report import Report

from sparse_hyper_jax.train.recipes.sort import SortRecipe

SEEDS = 3


def run(report: Report, **options: Any) -> None:
    """Train with several seeds and write their lines."""
    for seed in range(SEEDS):
        with tempfile.TemporaryDirectory() as folder:
            recipe = SortRecipe(**options, seed=seed, out=Path(folder) / "run", quiet=True)
            result = recipe.run()
        # The temporary folder is gone: its name would mean nothing.
        report.add(**{name: value for name, value in result.items() if name != "out"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help="folder of the four MNIST files")
    asked = parser.parse_args()
    report = Report("sort")
    for n in (4, 8):
        run(report, n=n)
    if asked.mnist is not None:
        for n in (4, 8):
            run(report, n=n, data="mnist", data_dir=asked.mnist)


if __name__ == "__main__":
    main()
