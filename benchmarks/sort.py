"""Sort held-out digits after training on order alone: lengths and seeds.

    python benchmarks/sort.py                 bundled digits
    python benchmarks/sort.py --mnist DIR     MNIST
    python benchmarks/sort.py --table         only print the table

One JSON line per run of the recipe ``sort``: exact and element-wise match on sequences of test
digits, and its wall-clock seconds, of one core each. Runs that are there already are kept.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from report import Report, percent, read_lines

from sparse_hyper_jax.train.recipes.sort import SortRecipe

NAME = "sort"
SEEDS = 3
BUNDLED: tuple[dict[str, Any], ...] = ({"n": 4, "steps": 5_000},)
MNIST: tuple[dict[str, Any], ...] = (
    {"n": 8, "data": "mnist", "steps": 15_000, "batch": 32, "warp": 1.25},
)


def run(report: Report, **options: Any) -> None:
    """Train with several seeds and write their lines, unless they are there."""
    for seed in range(SEEDS):
        wanted = {"data": "digits", **options, "seed": seed}
        facts = {name: value for name, value in wanted.items() if name != "data_dir"}
        if any(facts.items() <= line.items() for line in read_lines(NAME)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            recipe = SortRecipe(**options, seed=seed, out=Path(folder) / "run", quiet=True)
            result = recipe.run()
        # The temporary folder is gone: its name would mean nothing.
        report.add(**{name: value for name, value in (facts | result).items() if name != "out"})


def table() -> str:
    """Write exact and element-wise match on test digits."""
    rows = [
        "| digits | n | steps | whole sequence right | elements right |",
        "|---|---|---|---|---|",
    ]
    for options in BUNDLED + MNIST:
        wanted = {"data": "digits", **options}
        lines = [line for line in read_lines(NAME) if wanted.items() <= line.items()]
        cells = (percent([line[f"{one}_match"] for line in lines]) for one in ("exact", "element"))
        kind = "bundled, 8 x 8" if wanted["data"] == "digits" else "MNIST"
        rows.append(f"| {kind} | {options['n']} | {options['steps']:,} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help="folder of the four MNIST files")
    parser.add_argument("--table", action="store_true", help="only print the table")
    asked = parser.parse_args()
    if not asked.table:
        report = Report(NAME, append=True)
        for options in MNIST if asked.mnist else BUNDLED:
            folder = {"data_dir": asked.mnist} if asked.mnist else {}
            run(report, **options, **folder)
    print(table())


if __name__ == "__main__":
    main()
