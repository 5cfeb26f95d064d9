"""Training steps of the recipes that :mod:`benchmarks.unbiased` compares."""

from collections.abc import Callable
from typing import Any

import jax

from benchmarks.lines import Facts, Line
from benchmarks.recipes import recipe_of
from benchmarks.runner import Asked
from benchmarks.timing import interleaved
from benchmarks.unbiased import TASKS

STEPS_PER_CALL = 50


def scan_of(recipe: Any) -> Callable[[], Any]:
    """Give some steps of a recipe as one compiled function."""
    data = recipe.load()
    plan = recipe.settle(data).plan(data)

    @jax.jit
    def steps(state: Any, keys: jax.Array, *constants: Any) -> Any:
        return jax.lax.scan(lambda state, key: plan.step(state, key, *constants), state, keys)

    keys = jax.random.split(jax.random.key(0), STEPS_PER_CALL)
    return lambda: steps(plan.state, keys, *plan.constants)


def measure(facts: Facts, asked: Asked) -> list[Line]:
    """Give milliseconds per step of all settings of a task."""
    task, of = facts["task"], TASKS[facts["task"]]
    settings = dict(list(of.settings.items())[:2] if asked.tiny else of.settings)
    calls = {
        setting: scan_of(recipe_of(task, asked, **of.options, **options))
        for setting, options in settings.items()
    }
    return [
        {"setting": setting, "step_ms": round(milliseconds / STEPS_PER_CALL, 4)}
        for setting, milliseconds in interleaved(calls, repeats=asked.repeats).items()
    ]
