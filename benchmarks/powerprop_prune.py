"""Does powerpropagation make networks easier to prune? MNIST, 784-300-100-10, 50,000 steps.

    python benchmarks/powerprop_prune.py --mnist DIR               all settings and seeds
    python benchmarks/powerprop_prune.py --mnist DIR --seeds 3 4   some seeds
    python benchmarks/powerprop_prune.py --table | --draw          from the JSON lines

One JSON line per run of the recipe ``powerprop``: test accuracy of the final weights, whole and
pruned in one shot to 20 densities without any training afterwards. Lines that are there already are
not run again, so that an interrupted call goes on, and several may run side by side.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from report import RESULTS, Report

from sparse_hyper_jax.train.recipes.powerprop import PowerpropRecipe

NAME = "powerprop_prune"
FIGURE = Path(__file__).parent.parent / "docs" / "powerprop.png"
ALPHAS = (1.0, 2.0, 3.0, 4.0, 5.0)
SETTINGS: dict[str, dict[str, Any]] = {
    **{f"SGD, alpha {alpha:g}": {"alpha": alpha} for alpha in ALPHAS},
    "SGD, alpha 1, L1 1e-05": {"alpha": 1.0, "l1": 1e-5},
    "SGD, alpha 1, L1 1e-04": {"alpha": 1.0, "l1": 1e-4},
    "SGD, alpha 2, decay 2e-04": {"alpha": 2.0, "decay": 2e-4},
    "SGD, alpha 3, decay 2e-04": {"alpha": 3.0, "decay": 2e-4},
}
ADAM: dict[str, dict[str, Any]] = {
    "Adam, alpha 1": {"alpha": 1.0, "optimizer": "adam"},
    **{
        f"Adam on {seen}, alpha {alpha:g}": {"alpha": alpha, "optimizer": "adam", "adapt_to": seen}
        for seen in ("theta", "weights")
        for alpha in ALPHAS[1:]
    },
}
SEEDS = {**dict.fromkeys(SETTINGS, range(5)), **dict.fromkeys(ADAM, range(3))}


def lines() -> list[dict[str, Any]]:
    """Read the runs so far."""
    path = RESULTS / f"{NAME}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(report: Report, setting: str, seed: int, folder: Path) -> None:
    """Train once and write the line, unless it is there."""
    if (setting, seed) in {(line["setting"], line["seed"]) for line in lines()}:
        return
    with tempfile.TemporaryDirectory() as name:
        options = {**SETTINGS, **ADAM}[setting]
        recipe = PowerpropRecipe(
            **options,
            data="mnist",
            data_dir=folder,
            evaluate_every=10_000,
            seed=seed,
            out=Path(name) / "run",
            quiet=True,
        )
        try:
            result = recipe.run()
        except FloatingPointError as error:
            report.add(setting=setting, seed=seed, diverged=str(error).split(";")[0])
            return
    result.pop("out")
    rounded = {
        key: [round(one, 4) for one in value] if isinstance(value, list) else value
        for key, value in result.items()
    }
    report.add(setting=setting, **rounded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help="folder of the four MNIST files")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    parser.add_argument("--only", help="settings that begin with this")
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument("--draw", action="store_true", help="only draw")
    asked = parser.parse_args()
    if asked.mnist is not None:
        report = Report(NAME, append=True)
        for seed in asked.seeds:
            for setting, seeds in SEEDS.items():
                if seed in seeds and setting.startswith(asked.only or ""):
                    run(report, setting, seed, asked.mnist)
    elif not (asked.table or asked.draw):
        parser.error("pass --mnist DIR to train, or --table or --draw")


if __name__ == "__main__":
    main()
