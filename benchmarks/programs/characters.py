"""CPU time of a training step of the recipe ``characters`` by how it attends."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from benchmarks.lines import Facts, Line
from benchmarks.recipes import recipe_of
from benchmarks.runner import Asked
from benchmarks.timing import going_on, interleaved
from sparse_hyper_jax.train.dispatch import Step


def measure(facts: Facts, asked: Asked) -> Iterator[Line]:
    """Time all methods in turn.

    Args:
        facts: ``methods``, ``length`` and ``batch``.
        asked: the text, and how many rounds.
    """
    sizes: dict[str, Any] = {name: facts[name] for name in ("length", "batch")}
    steps = {}
    for method in facts["methods"]:
        recipe = recipe_of("characters", asked, attention=method, data_dir=asked.text, **sizes)
        plan = recipe.plan(recipe.load())
        arguments = jax.random.key(0), *plan.constants
        steps[method] = going_on(state_after(plan.step), plan.state, *arguments)
    times = interleaved(steps, repeats=asked.repeats, clock=time.process_time)
    for method, milliseconds in times.items():
        yield {"method": method, "milliseconds": round(milliseconds, 2)}


def state_after(step: Step) -> Callable[..., Any]:
    """Give a step without its metrics."""
    return lambda state, *arguments: step(state, *arguments)[0]
