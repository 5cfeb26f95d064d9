"""Train the recipe ``identity``, and time its steps without evaluation."""

import dataclasses
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.identity import EVERY, SETTINGS, options_of
from benchmarks.lines import Facts, Line
from benchmarks.recipes import recipe_of
from benchmarks.runner import Asked
from sparse_hyper_jax.train.recipes.identity import (
    IdentityRecipe,
    initial_state,
    make_step,
)
from sparse_hyper_jax.train.recipes.identity import (
    measure as measure_tuples,
)


@cache
def compiled(recipe: IdentityRecipe) -> Callable[[Any, jax.Array, jax.Array], Any]:
    """Compile ``EVERY`` steps of a recipe, once for all its seeds."""
    step = make_step(recipe)

    def advance(state: Any, key: jax.Array, first: jax.Array) -> Any:
        def body(state: Any, number: jax.Array) -> tuple[Any, None]:
            return step(state, jax.random.fold_in(key, number))[0], None

        return jax.lax.scan(body, state, first + jnp.arange(EVERY, dtype=jnp.uint32))[0]

    return jax.jit(advance, donate_argnums=0)


def measure(facts: Facts, asked: Asked) -> Line:
    """Train once; give the curve and the final figures."""
    size, setting = facts["size"], facts["setting"]
    steps = 2 * EVERY if asked.tiny else SETTINGS[setting][1][size]
    options = options_of(setting, size)
    recipe = recipe_of("identity", asked, size=size, seed=facts["seed"], **options)
    advance = compiled(dataclasses.replace(recipe, seed=0))
    key, state, seconds = jax.random.key(recipe.seed), initial_state(recipe), []
    figures = [measure_tuples(recipe.tuples(state.parameters))]
    for first in range(0, steps, EVERY):
        start = time.perf_counter()
        state = jax.block_until_ready(advance(state, key, jnp.uint32(first)))
        seconds.append(time.perf_counter() - start)
        figures.append(measure_tuples(recipe.tuples(state.parameters)))
    errors = [figure["mse"] for figure in figures]
    inexact = [number for number, error in enumerate(errors) if error >= 1e-6]
    exact_from = EVERY * (max(inexact, default=-1) + 1)
    per_step, exact = float(np.median(seconds[1:])) / EVERY, exact_from <= steps
    return {
        "steps": steps,
        "test_mse": errors[-1],
        "test_cells_found": figures[-1]["cells_found"],
        "exact_from_step": exact_from if exact else None,
        "milliseconds_per_step": round(1e3 * per_step, 4),
        "seconds_to_exact": round(per_step * exact_from, 2) if exact else None,
        "curve": {"every": EVERY, "mse": [float(f"{error:.4g}") for error in errors]},
    }
