"""Learn the identity: sizes and seeds, ablations, REINFORCE, and the figure of all of them.

    python benchmarks/identity.py            train everything and draw
    python benchmarks/identity.py --only NAME   add the runs of some settings, without a figure
    python benchmarks/identity.py --draw     draw again from the JSON lines

One JSON line per run: test error over steps, the step from which on it is exact for good, seconds
per step without evaluation. Seeds differ in initialisation, data and samples.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report import RESULTS, Report

from sparse_hyper_jax.train import plots
from sparse_hyper_jax.train.recipes.identity import (
    IdentityRecipe,
    initial_state,
    make_step,
    measure,
)

EVERY = 250
FIGURE = Path(__file__).parent.parent / "docs" / "identity.png"
ABLATIONS: dict[str, dict[str, Any]] = {
    "no relocation": {"relocate_every": 0},
    "no relocation, student-t density": {"relocate_every": 0, "density": "student_t"},
    "no relocation, laplace density": {"relocate_every": 0, "density": "laplace"},
    "no relocation, variance floor 0.05": {"relocate_every": 0, "variance_floor": 0.05},
    "no extra points": {"num_global": 0, "num_local": 0},
    "no extra points, no relocation": {"num_global": 0, "num_local": 0, "relocate_every": 0},
}
LARGE = "relocation every 50 steps, 64 points"
SIZE_COLOURS = {
    8: "#9ecae1",
    16: "#4292c6",
    32: "#08519c",
    64: "#41ab5d",
    128: "#005a32",
    256: "#dd3497",
    1024: "#49006a",
}
RIGHT_PANEL = {
    "default": {"color": SIZE_COLOURS[16]},
    "no relocation": {"color": "#807dba", "style": "--"},
    "no extra points": {"color": "#fd8d3c"},
    "no extra points, no relocation": {"color": "#fd8d3c", "style": "--"},
    "reinforce": {"color": "#cb181d"},
}


@cache
def compiled(recipe: IdentityRecipe) -> Callable[[Any, jax.Array, jax.Array], Any]:
    """Compile ``EVERY`` steps of a recipe, once for all its seeds."""
    step = make_step(recipe)

    @partial(jax.jit, donate_argnums=0)
    def advance(state: Any, key: jax.Array, first: jax.Array) -> Any:
        def body(state: Any, number: jax.Array) -> tuple[Any, None]:
            return step(state, jax.random.fold_in(key, number))[0], None

        return jax.lax.scan(body, state, first + jnp.arange(EVERY, dtype=jnp.uint32))[0]

    return advance


def run(recipe: IdentityRecipe, steps: int) -> dict[str, Any]:
    """Train one recipe and give its curve and final figures."""
    advance = compiled(dataclasses.replace(recipe, seed=0))
    key = jax.random.key(recipe.seed)
    state, seconds = initial_state(recipe), []
    figures = [measure(recipe.tuples(state.parameters))]
    for first in range(0, steps, EVERY):
        start = time.perf_counter()
        state = jax.block_until_ready(advance(state, key, jnp.uint32(first)))
        seconds.append(time.perf_counter() - start)
        figures.append(measure(recipe.tuples(state.parameters)))
    errors = [figure["mse"] for figure in figures]
    inexact = [number for number, error in enumerate(errors) if error >= 1e-6]
    exact_from = EVERY * (max(inexact, default=-1) + 1)
    per_step = float(np.median(seconds[1:])) / EVERY if len(seconds) > 1 else None
    return {
        "steps": steps,
        "mse": errors[-1],
        "cells_found": figures[-1]["cells_found"],
        "exact_from_step": exact_from if exact_from <= steps else None,
        "milliseconds_per_step": None if per_step is None else round(1e3 * per_step, 4),
        "seconds_to_exact": round(per_step * exact_from, 2)
        if per_step and exact_from <= steps
        else None,
        "curve": {"every": EVERY, "mse": [float(f"{error:.4g}") for error in errors]},
    }


def settings() -> list[tuple[str, IdentityRecipe, int, int]]:
    """List label, recipe, steps and number of seeds."""
    steps = {8: 4000, 16: 4000, 32: 12_000, 64: 30_000, 128: 16_000, 256: 8_000}
    rows = [("default", IdentityRecipe(size=n), count, 5) for n, count in steps.items()]
    for label, options in ABLATIONS.items():
        sizes = {"no relocation": (16, 32, 64)}.get(label, (16, 32))
        for n in (16,) if "points" in label else sizes:
            count = 10_000 if n == 16 else steps[n]
            rows.append((label, IdentityRecipe(size=n, **options), count, 5))
    large = IdentityRecipe(size=1024, relocate_every=50, relocation_points=64)
    rows.append((LARGE, large, 14_000, 1))
    reinforce = IdentityRecipe(size=16, estimator="reinforce")
    rows.append(("reinforce", reinforce, 10_000, 5))
    for groups in (1, 4, 16, 64):
        recipe = IdentityRecipe(size=16, sample_groups=groups)
        rows.append((f"samples in {groups} groups", recipe, 4000, 5))
    return rows


def draw() -> Figure:
    """Draw the curves: sizes on the left, ablations and REINFORCE on the right."""
    lines = [json.loads(line) for line in (RESULTS / "identity.jsonl").read_text().splitlines()]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)

    def curve(ax: Axes, setting: str, n: int, label: str, **style: str) -> None:
        chosen = [line for line in lines if (line["setting"], line["size"]) == (setting, n)]
        runs = np.maximum([line["curve"]["mse"] for line in chosen], 1e-7)
        plots.plot_band(ax, EVERY * np.arange(runs.shape[1]), runs, label=label, **style)

    for n, colour in SIZE_COLOURS.items():
        curve(left, LARGE if n == 1024 else "default", n, f"n = {n:,}", color=colour)
    for setting, style in RIGHT_PANEL.items():
        curve(right, setting, 16, setting, **style)
    for ax, title in ((left, "learning the n x n identity"), (right, "ablations, n = 16")):
        ax.set(yscale="log", xlabel="step", title=title)
        ax.set_xscale("symlog", linthresh=EVERY)
        ax.set_xlim(left=0)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8)
    left.set_ylabel("test mean squared error (floor 1e-7)")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="only draw from the JSON lines")
    parser.add_argument("--only", default="", help="add settings with this in their name")
    asked = parser.parse_args()
    if not asked.draw:
        report = Report("identity", append=bool(asked.only))
        for label, recipe, steps, seeds in settings():
            if asked.only not in label:
                continue
            for seed in range(seeds):
                result = run(dataclasses.replace(recipe, seed=seed), steps)
                report.add(setting=label, size=recipe.size, seed=seed, **result)
    if asked.only:
        return
    FIGURE.parent.mkdir(exist_ok=True)
    draw().savefig(FIGURE, dpi=150)


if __name__ == "__main__":
    main()
