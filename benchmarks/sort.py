"""Sort held-out digits after training on order alone: lengths and seeds.

    python benchmarks/sort.py                            bundled digits
    python benchmarks/sort.py --mnist DIR --steps 2000   adds runs with MNIST

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
    parser.add_argument("--steps", type=int, default=SortRecipe.steps)
    asked = parser.parse_args()
    if asked.mnist is None:
        report = Report("sort")
        for n in (4, 8):
            run(report, n=n, steps=asked.steps)
    else:
        report = Report("sort", append=True)
        run(report, n=4, steps=asked.steps, data="mnist", data_dir=asked.mnist)


if __name__ == "__main__":
    main()
