"""What does powerpropagation add to sparse training? MNIST, 784-300-100-10, densities by ERK.

    python benchmarks/sparse_training.py --mnist DIR               all settings and seeds
    python benchmarks/sparse_training.py --mnist DIR --seeds 1 2   some seeds
    python benchmarks/sparse_training.py --table                   from the JSON lines

One JSON line per run of the recipe ``powerprop`` with a sparse method: test accuracy of the final
masked weights. Lines that are there already are not run again. Learning rate, alpha and first size
of grown weights were chosen by validation accuracy with RigL at 5 %, seed 100, 10,000 steps.
"""

import itertools
import tempfile
from pathlib import Path
from typing import Any

from report import Report, percent, read_lines, train_and_show

from sparse_hyper_jax.train.recipes.powerprop import PowerpropRecipe

NAME = "sparse_training"
METHODS = ("set", "rigl", "top-kast", "magnitude")
ALPHAS = (1.0, 3.0)
COLUMNS = ((0.2, 10_000), (0.1, 10_000), (0.05, 10_000), (0.02, 10_000), (0.05, 50_000))
"""Density and steps."""

RATE = 0.3


def settings(method: str) -> list[dict[str, Any]]:
    """Give what is asked for in a row, one for each column."""
    columns = COLUMNS if method != "dense" else ((1.0, COLUMNS[0][1]),)
    return [{"method": method, "asked": density, "steps": steps} for density, steps in columns]


def run(report: Report, wanted: dict[str, Any], mnist: Path) -> None:
    """Train once and write the line, unless it is there."""
    if any(wanted.items() <= line.items() for line in read_lines(NAME)):
        return
    with tempfile.TemporaryDirectory() as name:
        recipe = PowerpropRecipe(
            **{"density" if key == "asked" else key: value for key, value in wanted.items()},
            learning_rate=RATE,
            data="mnist",
            data_dir=mnist,
            evaluate_every=5_000,
            out=Path(name) / "run",
            quiet=True,
        )
        try:
            result = recipe.run()
        except FloatingPointError as error:
            report.add(**wanted, diverged=str(error).split(";")[0])
            return
    left_out = {"out", "seconds", "densities", "pruned_test_accuracy"}
    kept = {key: value for key, value in result.items() if key not in left_out}
    report.add(**kept | wanted)


def table() -> str:
    """Give test accuracies as a Markdown table, rows with and without powerpropagation in turn."""
    names = [f"{100 * density:g} %, {steps:,} steps" for density, steps in COLUMNS]
    rows = ["| method | alpha | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for method, alpha in itertools.product(("dense", *METHODS), ALPHAS):
        cells = []
        for setting in settings(method):
            wanted = setting | {"alpha": alpha}
            found = [line for line in read_lines(NAME) if wanted.items() <= line.items()]
            runs = [line["test_accuracy"] for line in found if "diverged" not in line]
            failed = len(found) - len(runs)
            cells.append(percent(runs, 2) + (f", {failed} diverged" if failed else ""))
        cells += [""] * (len(COLUMNS) - len(cells))
        rows.append(f"| {method} | {alpha:g} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def train(seed: int, mnist: Path) -> None:
    """Make the lines of one seed."""
    report = Report(NAME, append=True)
    for method, alpha in itertools.product(("dense", *METHODS), ALPHAS):
        for setting in settings(method):
            run(report, setting | {"alpha": alpha, "seed": seed}, mnist)


if __name__ == "__main__":
    train_and_show(__doc__.splitlines()[0], train, seeds=range(3), table=table)
