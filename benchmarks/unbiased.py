"""Does an unbiased gradient serve hyperlayer and sort better than the mixture's own?

    python benchmarks/unbiased.py identity             all settings and seeds
    python benchmarks/unbiased.py sort                 bundled digits
    python benchmarks/unbiased.py timing               milliseconds per step, on an idle machine
    python benchmarks/unbiased.py --table              from the JSON lines
    python benchmarks/unbiased.py --draw               the tables and docs/unbiased.png

One JSON line per run of a recipe, with its curve, and one per setting with the time of a step; the
tables read the curves at equal steps and at equal seconds. No tuple is relocated. Learning rates
are the recipes' own, and for each estimator also three times as high and a third: the best of the
three by its final figure on one seed that is not reported (a line of its own), the highest if they
are level.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from report import Report, interleaved, mean_and_spread, read_lines

from sparse_hyper_jax.train.data import index_by_class, load_splits
from sparse_hyper_jax.train.plots import plot_band, read_curve
from sparse_hyper_jax.train.recipes import identity, sort
from sparse_hyper_jax.train.run_folder import RunFolder

NAME = "unbiased"
SEEDS = range(5)
CHOICE_SEED = 100
FACTORS = (0.333, 1.0, 3.0)
ALONE = {"num_global": 0, "num_local": 0}
IDENTITY: dict[str, dict[str, Any]] = {
    "hyperlayer": {},
    "hyperlayer, points not shared": {"chunk_size": 1},
    "RLOO-4": {"estimator": "rloo"},
    "RLOO-16": {"estimator": "rloo", "num_samples": 16},
    "ARSM": {"estimator": "arsm"},
    "score function of Gaussians, no baseline": {"estimator": "reinforce"},
    "hyperlayer, neighbours alone": ALONE,
    "hyperlayer, neighbours alone, not shared": {"chunk_size": 1} | ALONE,
    "RLOO-4, neighbours alone": {"estimator": "rloo"} | ALONE,
    "ARSM, neighbours alone": {"estimator": "arsm"} | ALONE,
    "ARM, neighbours alone": {"estimator": "arm"} | ALONE,
}
SORT: dict[str, dict[str, Any]] = {
    "mixture, all levels": {"estimator": "mixture", "loss": "separate"},
    "mixture, last level": {"estimator": "mixture", "loss": "plain"},
    "RLOO-4": {"estimator": "rloo", "loss": "plain"},
    "RLOO-16": {"estimator": "rloo", "loss": "plain", "num_samples": 16},
}
COLOURS = ("#2166ac", "#92c5de", "#b2182b", "#f4a582", "#4d9221", "#b8e186", "#888888")


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained, and by what its runs are compared."""

    settings: Mapping[str, Mapping[str, Any]]
    make: Callable[..., Any]
    curve: str
    """Metric along the way."""

    shown: str
    """Name of the metric in tables and figures; more is better."""


TASKS = {
    "identity": Task(
        IDENTITY,
        lambda **options: identity.IdentityRecipe(
            size=16, steps=8_000, relocate_every=0, quiet=True, **options
        ),
        "eval_cells_found",
        "cells found of 16",
    ),
    "sort": Task(
        SORT,
        lambda **options: sort.SortRecipe(n=8, steps=4_000, quiet=True, **options),
        "eval_exact_match",
        "exact match",
    ),
}


def run(report: Report, task: str, setting: str, factor: float, seed: int) -> None:
    """Train once and write the line, unless it is there."""
    wanted = {"task": task, "setting": setting, "factor": factor, "seed": seed}
    if any(wanted.items() <= line.items() for line in read_lines(NAME)):
        return
    made = TASKS[task].make(**TASKS[task].settings[setting])
    with tempfile.TemporaryDirectory() as name:
        recipe = dataclasses.replace(
            made,
            learning_rate=factor * made.learning_rate,
            seed=seed,
            out=Path(name) / "run",
        )
        recipe.run()
        steps, values = read_curve(RunFolder(recipe.out), TASKS[task].curve)
    report.add(**wanted, curve={"steps": steps.tolist(), "values": values.round(4).tolist()})


def best_factor(task: str, setting: str) -> float:
    """Give the factor of the learning rate that did best on the seed for choosing."""
    tried = [
        (np.mean(line["curve"]["values"][-3:]), line["factor"])
        for line in read_lines(NAME)
        if line.get("seed") == CHOICE_SEED and (line["task"], line["setting"]) == (task, setting)
    ]
    return max(tried)[1]


def train(task: str, seeds: list[int]) -> None:
    """Choose the rates, then make the lines of the seeds."""
    report = Report(NAME, append=True)
    for setting in TASKS[task].settings:
        for factor in FACTORS:
            run(report, task, setting, factor, CHOICE_SEED)
    for seed in seeds:
        for setting in TASKS[task].settings:
            run(report, task, setting, best_factor(task, setting), seed)


def time_steps() -> None:
    """Write milliseconds per step of all settings, a scan of 50 at a time."""
    report = Report(NAME, append=True)
    for task, of in TASKS.items():
        calls = {}
        for setting, options in of.settings.items():
            recipe = of.make(**options)
            calls[setting] = scan_of(recipe)
        for setting, milliseconds in interleaved(calls, repeats=7).items():
            report.add(task=task, setting=setting, step_ms=round(milliseconds / 50, 4))


def scan_of(recipe: Any) -> Callable[[], Any]:
    """Give fifty compiled steps of a recipe."""
    if isinstance(recipe, identity.IdentityRecipe):
        step, state, constants = identity.make_step(recipe), identity.initial_state(recipe), ()
    else:
        constants = (index_by_class(load_splits("digits", None, seed=0).train),)
        keys_of, state = sort.make_model(recipe, constants[0].images.shape[1:])
        step = sort.make_step(recipe, keys_of)

    @jax.jit
    def steps(state: Any, keys: jax.Array, *constants: Any) -> Any:
        return jax.lax.scan(lambda state, key: step(state, key, *constants), state, keys)

    keys = jax.random.split(jax.random.key(0), 50)
    return lambda: steps(state, keys, *constants)


def runs_of(task: str, setting: str) -> list[dict[str, Any]]:
    """Read the reported runs of a setting."""
    return [
        line
        for line in read_lines(NAME)
        if (line["task"], line["setting"]) == (task, setting)
        and line.get("seed", CHOICE_SEED) != CHOICE_SEED
    ]


def step_ms(task: str, setting: str) -> float:
    """Read the newest time of a step; NaN if there is none."""
    times = [
        line["step_ms"]
        for line in read_lines(NAME)
        if (line["task"], line["setting"]) == (task, setting) and "step_ms" in line
    ]
    return times[-1] if times else float("nan")


def at_step(line: dict[str, Any], step: float) -> float:
    """Read a curve at a step; at its end if it is shorter."""
    return float(np.interp(step, line["curve"]["steps"], line["curve"]["values"]))


def table() -> str:
    """Give the figures at equal steps and at equal seconds as Markdown tables."""
    rows = []
    for task, of in TASKS.items():
        first = next(iter(of.settings))
        total = max((line["curve"]["steps"][-1] for line in runs_of(task, first)), default=0)
        early = total // 4
        rows += [
            f"| {task}: {of.shown} | rate | {early:,} steps | {total:,} steps | ms per step "
            f"| seconds of {early:,} steps of the first row |",
            "|---" * 6 + "|",
        ]
        for setting in of.settings:
            runs = runs_of(task, setting)
            if not runs:
                continue
            equal = early * step_ms(task, first) / step_ms(task, setting)
            figures = [[at_step(line, at) for line in runs] for at in (early, total, equal)]
            digits = 1 if task == "identity" else 3
            one, two, three = (mean_and_spread(values, digits) for values in figures)
            factor = {1.0: "default", 3.0: "x 3"}.get(runs[0]["factor"], "/ 3")
            rows.append(
                f"| {setting} | {factor} | {one} | {two} | {step_ms(task, setting):.2f} | {three} |"
            )
        rows.append("")
    return "\n".join(rows)


def draw() -> Figure:
    """Draw the curves of both tasks against steps."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for ax, (task, of) in zip(figure.subplots(1, 2), TASKS.items(), strict=True):
        shown = [name for name in of.settings if "alone" not in name]
        for setting, colour in zip(shown, COLOURS, strict=False):
            runs = runs_of(task, setting)
            if runs:
                steps = np.asarray(runs[0]["curve"]["steps"])
                values = np.asarray([line["curve"]["values"] for line in runs])
                plot_band(ax, steps, values, label=setting, color=colour)
        ax.set(xlabel="steps", ylabel=of.shown, title=task)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=7.5)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=[*TASKS, "timing"])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--table", action="store_true", help="only print the tables")
    parser.add_argument("--draw", action="store_true", help="print the tables and draw")
    asked = parser.parse_args()
    if asked.what == "timing":
        time_steps()
    elif asked.what:
        train(asked.what, list(asked.seeds))
    elif not (asked.table or asked.draw):
        parser.error("say identity, sort or timing; --table or --draw show what is there")
    print(table())
    if asked.draw:
        draw().savefig(Path("docs") / "unbiased.png", dpi=150)


if __name__ == "__main__":
    main()
