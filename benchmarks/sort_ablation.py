"""What the parts of the differentiable sorts are worth: relaxation, loss, proposals, candidates.

    python benchmarks/sort_ablation.py            train with the bundled digits, resumable
    python benchmarks/sort_ablation.py --draw     print the table and draw

The recipe ``sort`` with eight distinct digits, everything but one or two options the same; exact
match on validation digits along the way, on test digits at the end.
"""

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from report import Report, percent, read_lines

from sparse_hyper_jax.train.recipes.sort import SortRecipe

NAME = "sort_ablation"
FIGURE = Path(__file__).parent.parent / "docs" / "sort_ablation.png"
SEEDS, STEPS = (0, 1, 2), 2_000
SOFT: dict[str, Any] = {"estimator": "soft"}
MIXTURE: dict[str, Any] = {"estimator": "mixture", "loss": "separate"}
SETTINGS: dict[str, dict[str, Any]] = {
    "soft, order": SOFT,
    "soft, order, certainty fixed at 6": SOFT | {"learn_certainty": False},
    "soft, ranks": SOFT | {"loss": "ranks"},
    "soft, positions": SOFT | {"loss": "plain"},
    "soft, images": SOFT | {"loss": "plain", "payload": "images"},
    "quicksort, 16 uniform": MIXTURE,
    "quicksort, 16, half near": MIXTURE | {"num_near": 8},
    "quicksort, 16, all near": MIXTURE | {"num_near": 15},
    "quicksort, 4 uniform": MIXTURE | {"num_candidates": 4},
    "quicksort, 4, all near": MIXTURE | {"num_candidates": 4, "num_near": 3},
    "quicksort, all 70": MIXTURE | {"num_candidates": 70},
    "quicksort, 16 uniform, means": MIXTURE | {"loss": "means"},
    "quicksort, 16 uniform, plain": MIXTURE | {"loss": "plain"},
}
DRAWN = ("soft, order", "soft, ranks", "soft, positions", "quicksort, all 70")
DRAWN += ("quicksort, 16, all near", "quicksort, 16 uniform", "quicksort, 4 uniform")
COLOURS = ("#b2182b", "#ef8a62", "#fddbc7", "#2166ac", "#67a9cf", "#4d9221", "#b8e186")


def run(report: Report, setting: str, seed: int) -> None:
    """Train once and write the line, unless it is there."""
    facts = {"setting": setting, "seed": seed, "steps": STEPS}
    if any(facts.items() <= line.items() for line in read_lines(NAME)):
        return
    recipe = SortRecipe(n=8, steps=STEPS, batch=32, seed=seed, quiet=True, **SETTINGS[setting])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        result = dataclasses.replace(recipe, out=path).run()
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    curve = [
        [line["step"], round(line["eval_exact_match"], 4)]
        for line in lines
        if "eval_exact_match" in line
    ]
    shown = {name: result[name] for name in ("exact_match", "element_match", "certainty")}
    report.add(**facts, **shown, curve=curve)


def lines_of(setting: str) -> list[dict[str, Any]]:
    """Read the runs of a setting."""
    return [line for line in read_lines(NAME) if line["setting"] == setting]


def table() -> str:
    """Write exact and element-wise match on test digits."""
    rows = ["| setting | whole sequence right | elements right |", "|---|---|---|"]
    for setting in SETTINGS:
        lines = lines_of(setting)
        cells = (percent([line[f"{one}_match"] for line in lines]) for one in ("exact", "element"))
        rows.append(f"| {setting} | {' | '.join(cells)} |")
    return "\n".join(rows)


def draw() -> Figure:
    """Draw the error on validation digits against steps, mean and spread over seeds."""
    figure = Figure(figsize=(7.5, 3.4), layout="constrained")
    axes = figure.subplots()
    for setting, colour in zip(DRAWN, COLOURS, strict=True):
        curves = np.array([line["curve"] for line in lines_of(setting)])
        steps, errors = curves[0, 1:, 0], 1 - curves[:, 1:, 1]
        centre, spread = errors.mean(0), errors.std(0)
        axes.plot(steps, centre, "o-", markersize=3, color=colour, label=setting)
        axes.fill_between(
            steps, centre - spread, centre + spread, color=colour, alpha=0.15, linewidth=0
        )
    axes.set(xlabel="steps", ylabel="error (1 - exact match)", yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="print the table and draw")
    parser.add_argument("--table", action="store_true", help="only print the table")
    asked = parser.parse_args()
    if not (asked.draw or asked.table):
        report = Report(NAME, append=True)
        for seed in SEEDS:
            for setting in SETTINGS:
                run(report, setting, seed)
    print(table())
    if asked.draw:
        draw().savefig(FIGURE, dpi=150)


if __name__ == "__main__":
    main()
