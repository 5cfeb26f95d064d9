"""What the parts of the differentiable sorts are worth: relaxation, loss, proposals, candidates.

    python benchmarks/sort_ablation.py            train with the bundled digits, resumable
    python benchmarks/sort_ablation.py --draw     print the table and draw

The recipe ``sort`` with eight distinct digits and a certainty of 6, everything but one or two
options the same; match on test digits.
"""

import argparse
import dataclasses
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from report import Report, percent, read_lines

from sparse_hyper_jax.sort import half_split
from sparse_hyper_jax.train.recipes.sort import SortRecipe

NAME = "sort_ablation"
FIGURE = Path(__file__).parent.parent / "docs" / "sort_ablation.png"
SEEDS, STEPS = (0, 1, 2), 1_000
SOFT: dict[str, Any] = {"estimator": "soft", "learn_certainty": False}
MIXTURE: dict[str, Any] = {"estimator": "mixture", "loss": "separate"}
SETTINGS: dict[str, dict[str, Any]] = {
    "soft, order": SOFT,
    "soft, order, certainty learned": SOFT | {"learn_certainty": True},
    "soft, ranks": SOFT | {"loss": "ranks"},
    "soft, positions": SOFT | {"loss": "plain"},
    "quicksort, 16 uniform": MIXTURE,
    "quicksort, 16, all near": MIXTURE | {"num_near": 15},
    "quicksort, 4 uniform": MIXTURE | {"num_candidates": 4},
    "quicksort, all 70": MIXTURE | {"num_candidates": 70},
    "quicksort, 16 uniform, plain": MIXTURE | {"loss": "plain"},
}
PROPOSALS = ((2, 0), (4, 0), (4, 3), (5, 0), (6, 0))
DRAWS, BIAS_CERTAINTY = 100_000, 2.0


def run(report: Report, setting: str, seed: int) -> None:
    """Train once and write the line, unless it is there."""
    facts = {"setting": setting, "seed": seed, "steps": STEPS}
    if any(facts.items() <= line.items() for line in read_lines(NAME)):
        return
    recipe = SortRecipe(n=8, steps=STEPS, batch=32, seed=seed, quiet=True, **SETTINGS[setting])
    with tempfile.TemporaryDirectory() as folder:
        result = dataclasses.replace(recipe, out=Path(folder) / "run").run()
    shown = {name: result[name] for name in ("exact_match", "element_match", "certainty")}
    report.add(**facts, **shown)


def measure_bias(report: Report) -> None:
    """Compare the mean split of four keys with that of all six halvings, level by level exact."""
    keys, draws = jax.random.normal(jax.random.key(0), (4,)), jax.random.key(1)

    def split(key: jax.Array, candidates: int, near: int) -> jax.Array:
        options = {"num_candidates": candidates, "num_near": near, "certainty": BIAS_CERTAINTY}
        return half_split(key, keys, jnp.eye(4), **options)[1]

    exact = split(draws, 6, 0)
    for candidates, near in PROPOSALS:
        facts = {"bias": True, "num_candidates": candidates, "num_near": near}
        if any(facts.items() <= line.items() for line in read_lines(NAME)):
            continue
        one = jax.jit(jax.vmap(partial(split, candidates=candidates, near=near)))
        drawn = one(jax.random.split(draws, DRAWS))
        length = jnp.linalg.norm(exact)
        bias = jnp.linalg.norm(drawn.mean(0) - exact) / length
        noise = jnp.sqrt(jnp.sum(drawn.var(0)) / DRAWS) / length
        report.add(**facts, error=round(float(bias), 4), noise=round(float(noise), 4))


def bias_table() -> str:
    """Write the bias of a split relative to that of all halvings."""
    rows = ["| candidates | of them near | bias of the mean split | its noise |", "|---" * 4 + "|"]
    for line in read_lines(NAME):
        if line.get("bias"):
            cells = f"{line['error']:.3f} | {line['noise']:.3f}"
            rows.append(f"| {line['num_candidates']} | {line['num_near']} | {cells} |")
    return "\n".join(rows)


def lines_of(setting: str) -> list[dict[str, Any]]:
    """Read the runs of a setting."""
    return [line for line in read_lines(NAME) if line.get("setting") == setting]


def table() -> str:
    """Write exact and element-wise match on test digits."""
    rows = ["| setting | whole sequence right | elements right |", "|---|---|---|"]
    for setting in SETTINGS:
        lines = lines_of(setting)
        cells = (percent([line[f"{one}_match"] for line in lines]) for one in ("exact", "element"))
        rows.append(f"| {setting} | {' | '.join(cells)} |")
    return "\n".join(rows)


def draw() -> Figure:
    """Draw the error on test digits, a dot for every seed and a bar for their mean."""
    figure = Figure(figsize=(6.5, 3.0), layout="constrained")
    axes = figure.subplots()
    for height, setting in enumerate(reversed(SETTINGS)):
        errors = [1 - line["exact_match"] for line in lines_of(setting)]
        colour = "#b2182b" if setting.startswith("soft") else "#2166ac"
        axes.barh(height, np.mean(errors), color=colour, alpha=0.3, height=0.65)
        axes.plot(errors, [height] * len(errors), "o", color=colour, markersize=4)
    axes.set_yticks(range(len(SETTINGS)), reversed(SETTINGS))
    axes.set(xlabel="error on test digits (1 - exact match)", xlim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="print the table and draw")
    parser.add_argument("--table", action="store_true", help="only print the table")
    asked = parser.parse_args()
    if not (asked.draw or asked.table):
        report = Report(NAME, append=True)
        measure_bias(report)
        for seed in SEEDS:
            for setting in SETTINGS:
                run(report, setting, seed)
    print(table(), bias_table(), sep="\n\n")
    if asked.draw:
        draw().savefig(FIGURE, dpi=150)


if __name__ == "__main__":
    main()
