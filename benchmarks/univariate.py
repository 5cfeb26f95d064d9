"""One variable with thirty arms: variance of each estimator's gradient, and the reward it reaches.

    python benchmarks/univariate.py                    all settings and seeds
    python benchmarks/univariate.py --table            from the JSON lines

One JSON line per run of the recipe ``univariate``: reward after 5,000 steps of plain ascent with
rate 1, and bias and variance from 200,000 estimates at uniform and at random logits.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from report import Report, mean_and_spread, read_lines

from sparse_hyper_jax.train.recipes.univariate import UnivariateRecipe

NAME = "univariate"
SEEDS = range(3)
SETTINGS: dict[str, dict[str, Any]] = {
    "exact": {"estimator": "enumeration"},
    "score function": {"estimator": "score_function"},
    "AR": {"estimator": "ar"},
    "ARS": {"estimator": "ars"},
    "ARSM": {"estimator": "arsm"},
    "RLOO-2": {"estimator": "rloo", "num_samples": 2},
    "RLOO-8": {"estimator": "rloo", "num_samples": 8},
    "without replacement, 8": {"estimator": "without_replacement", "num_samples": 8},
    "REBAR": {"estimator": "rebar"},
    "straight-through": {"estimator": "straight_through"},
    "Gumbel straight-through, 0.2": {"estimator": "gumbel_straight_through", "temperature": 0.2},
    "uninformed subset of 5": {"estimator": "uninformed_subset"},
    "informed subset of 5": {"estimator": "informed_subset"},
}


def run(report: Report, setting: str, seed: int) -> None:
    """Climb once and write the line, unless it is there."""
    wanted = {"setting": setting, "seed": seed}
    if any(wanted.items() <= line.items() for line in read_lines(NAME)):
        return
    with tempfile.TemporaryDirectory() as name:
        recipe = UnivariateRecipe(
            **SETTINGS[setting], seed=seed, out=Path(name) / "run", quiet=True
        )
        result = recipe.run()
    del result["out"], result["seconds"]
    report.add(**result | wanted)


def bias_of(figures: dict[str, float]) -> str:
    """Write a relative bias, or that none was seen above twice the noise."""
    if figures["variance"] < 1e-9:
        return "0"
    seen = figures["bias"] > 2 * figures["noise"]
    return f"{figures['bias']:.2f}" if seen else f"none seen (noise {figures['noise']:.1g})"


def table() -> str:
    """Give rewards and variances as a Markdown table."""
    rows = [
        "| estimator | evaluations | reward | variance, uniform logits | random logits | bias |",
        "|---" * 6 + "|",
    ]
    for setting in SETTINGS:
        runs = [line for line in read_lines(NAME) if line["setting"] == setting]
        uniform, random = (runs[0][f"at_{name}_logits"] for name in ("uniform", "random"))
        one, two = (
            "0" if figures["variance"] < 1e-9 else f"{figures['class_variance']:.1e}"
            for figures in (uniform, random)
        )
        reward = mean_and_spread([line["reward"] for line in runs], 4)
        cells = (setting, runs[0]["evaluations"], reward, one, two, bias_of(random))
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="only print the table")
    if not parser.parse_args().table:
        report = Report(NAME, append=True)
        for seed in SEEDS:
            for setting in SETTINGS:
                run(report, setting, seed)
    print(table())


if __name__ == "__main__":
    main()
