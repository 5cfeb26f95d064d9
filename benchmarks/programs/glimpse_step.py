"""Whole steps of the glimpse recipe, and their parts."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.glimpse_step import TASKS, WAYS
from benchmarks.lines import Facts, Line
from benchmarks.recipes import recipe_of
from benchmarks.runner import Asked
from benchmarks.timing import going_on, interleaved
from sparse_hyper_jax.train.data.canvases import Canvases
from sparse_hyper_jax.train.recipes.glimpse import GlimpseRecipe, build, rebuild

STEPS_PER_CALL = 3
"""The loop scans over steps, and a scan compiles otherwise than a step alone."""

Part = Callable[[Any, jax.Array, Any], Any]
"""``part(state, key, source)`` gives the next state, so that nothing can be left out."""


def measure(facts: Facts, asked: Asked) -> list[Line]:
    """Time the steps of all ways of a task, and the parts of the first and of the last."""
    calls = {}
    for way, options in WAYS.items():
        recipe = recipe_of("glimpse", asked, **{"data": "mnist"} | TASKS[facts["task"]] | options)
        canvases = recipe.load()
        recipe = recipe.settle(canvases)
        plan = recipe.plan(canvases)
        named = {"step": (keep_state(plan.step), plan.state)}
        if way in (next(iter(WAYS)), next(reversed(WAYS))):
            named |= parts(recipe, canvases)
        for name, (part, state) in named.items():
            calls[way, name] = going_on(repeated(part), state, jax.random.key(0), *plan.constants)
    times = interleaved(calls, repeats=asked.repeats, clock=time.process_time)
    return [
        {"way": way, "part": part, "milliseconds": round(ms / STEPS_PER_CALL, 2)}
        for (way, part), ms in times.items()
    ]


def repeated(part: Part) -> Part:
    """Do a part several times, each with another key."""

    def several(state: Any, key: jax.Array, source: Any) -> Any:
        keys = jax.random.split(key, STEPS_PER_CALL)
        return jax.lax.scan(lambda state, key: (part(state, key, source), None), state, keys)[0]

    return several


def keep_state(step: Callable[..., tuple[Any, Any]]) -> Part:
    """Leave out the metrics of a training step."""
    return lambda state, key, source: step(state, key, source)[0]


def parts(recipe: GlimpseRecipe, canvases: Canvases) -> dict[str, tuple[Part, Any]]:
    """Name the parts of a step, each with the state that it begins with.

    The gradient of a part is one descent of a length that changes nothing.
    """
    graph, parameters, rest = nnx.split(build(recipe, canvases), nnx.Param, ...)
    images, _ = canvases.draw(jax.random.key(1), canvases.parts["train"], recipe.batch)
    attention = rebuild(recipe, canvases, parameters).attention
    corners = attention.corners(attention.numbers(images))
    windows = attention.read(images, corners, rngs=jax.random.key(2))

    def draw(state: jax.Array, key: jax.Array, source: Any) -> jax.Array:
        return state + canvases.draw(key, source, recipe.batch)[0]

    def descent(of: Callable[[Any, Any], jax.Array]) -> Part:
        def part(state: Any, key: jax.Array, source: Any) -> Any:
            def loss(state: Any) -> jax.Array:
                held, given = state
                return jnp.sum(jnp.square(of(nnx.merge(graph, held, rest), given)))

            slopes = jax.grad(loss)(state)
            return jax.tree.map(lambda leaf, slope: leaf - 1e-12 * slope, state, slopes)

        return part

    # Images are constants of the loop, and have no gradient; places and windows do.
    where = descent(lambda model, _: model.attention.numbers(images))
    read = descent(
        lambda model, corners: model.attention.read(images, corners, rngs=jax.random.key(2))
    )
    head = descent(lambda model, windows: model.head(windows))
    return {
        "canvases": (draw, jnp.zeros_like(images)),
        "where": (where, (parameters, jnp.zeros(()))),
        "window": (read, (parameters, corners)),
        "head": (head, (parameters, windows)),
    }
