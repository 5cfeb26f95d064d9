"""The same operations by this library, softjax and ott: whether they agree, and what they cost."""

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from benchmarks.timing import compiled, interleaved, temporary_bytes
from sparse_hyper_jax import sort

SOFTNESS, K = 0.1, 8
LONGEST, ROWS = 2**13, 64
"""Beyond so many numbers only what holds less than so many rows is run: n^2 take minutes there."""

Function = Callable[[jax.Array], jax.Array]


def ours() -> dict[str, Function]:
    """Give the operations of this library, ascending."""
    certainty = 1 / SOFTNESS
    return {
        "sort": lambda x: sort.soft_sort(x, x, certainty=certainty),
        "ranks": lambda x: sort.soft_ranks(x, certainty=certainty),
        "median": lambda x: sort.soft_quantile(x, 0.5, certainty=certainty),
        "largest": lambda x: sort.soft_largest(x, K, certainty=certainty),
    }


def of_softjax(method: str) -> dict[str, Function]:
    """Give those of softjax, as they come but for the scaling, which is left out everywhere."""
    import softjax

    options: dict[str, Any] = {"softness": SOFTNESS, "method": method, "standardize": False}
    return {
        "sort": lambda x: softjax.sort(x, axis=0, **options),
        # Ours count from 0.
        "ranks": lambda x: softjax.rank(x, axis=0, descending=False, **options) - 1,
        "median": lambda x: softjax.quantile(x, jnp.array(0.5), axis=0, **options),
        "largest": lambda x: softjax.top_k(x, K, axis=0, **options)[0],
    }


def of_ott() -> dict[str, Function]:
    """Give those of ott: another relaxation, by optimal transport, unrolled."""
    from ott.initializers.linear.initializers import DefaultInitializer
    from ott.tools import soft_sort

    # Its own start, which sorts first, has no reverse mode; its implicit derivative fails from the
    # other one, by a singular system.
    start = {"initializer": DefaultInitializer(), "implicit_diff": None}
    start |= {"min_iterations": 500, "max_iterations": 500}
    return {
        "sort": lambda x: soft_sort.sort(x, **start),
        "ranks": lambda x: soft_sort.ranks(x, **start),
        "median": lambda x: soft_sort.quantile(x, 0.5, **start),
        "largest": lambda x: soft_sort.sort(x, topk=K, **start)[::-1],
    }


def libraries(n: int, largest_of_ott: int) -> dict[str, dict[str, Function]]:
    """Give what is installed and in reach at this size."""
    found = {"here": ours()}
    if importlib.util.find_spec("softjax"):
        found |= {f"softjax {name}": of_softjax(name) for name in ("softsort", "neuralsort")}
    if importlib.util.find_spec("ott") and n <= largest_of_ott:
        found["ott"] = of_ott()
    return found


def measure(facts: Facts, asked: Asked) -> list[Line]:
    """Compare all libraries in one operation at one size: a line each."""
    n, operation = facts["n"], facts["operation"]
    x = jnp.asarray(np.random.default_rng(n).normal(size=n), jnp.float32)
    functions = {
        name: one[operation] for name, one in libraries(n, facts["largest_of_ott"]).items()
    }
    programs, lines = {}, {name: {"library": name} for name in functions}
    for name, function in functions.items():
        program, _ = compiled(with_gradient(function), x)
        lines[name]["bytes"] = temporary_bytes(program)
        if n <= LONGEST or lines[name]["bytes"] < ROWS * x.nbytes:
            programs[name] = program
    values = {name: np.asarray(program(x)[1]) for name, program in programs.items()}
    slopes = {name: np.asarray(program(x)[0]) for name, program in programs.items()}
    times = interleaved(
        {name: partial(program, x) for name, program in programs.items()}, repeats=asked.repeats
    )
    for name in programs:
        lines[name] |= {
            "milliseconds": times[name],
            "difference": difference(values[name], values["here"]),
            "slope difference": difference(slopes[name], slopes["here"]),
        }
    return list(lines.values())


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Give the largest difference, as a share of the largest number."""
    return float(np.max(np.abs(one - other)) / np.max(np.abs(other)))


def with_gradient(function: Function) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """Give the gradient of half the sum of squares, and the value."""

    def loss(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        value = function(x)
        return 0.5 * jnp.mean(value**2), value

    return jax.grad(loss, has_aux=True)
