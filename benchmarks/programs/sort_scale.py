"""Differentiable sorts, ours and those of a peer, forward and gradient."""

import importlib.util
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from benchmarks.timing import compiled, interleaved, temporary_bytes
from sparse_hyper_jax.sort import soft_sort

WIDTH, CERTAINTY, LIMIT_GIB = 16, 10.0, 4.0
SOFTJAX = ("softsort", "neuralsort")
# Not its transport, "ot": the linear solver in its gradient fails at this softness.

Sort = Callable[[jax.Array, jax.Array], jax.Array]
"""Maps keys ``(n,)`` and a payload ``(n, width)`` to the sorted payload."""


def methods(n: int) -> dict[str, Sort]:
    """Name everything that can be measured here; a matrix has to be within the limit."""
    found: dict[str, Sort] = {"soft_sort": partial(soft_sort, certainty=CERTAINTY)}
    if importlib.util.find_spec("softjax") and 4 * n * n <= LIMIT_GIB * 2**30:
        found |= {f"softjax {name}": partial(softjax_sort, name) for name in SOFTJAX}
    return found


def softjax_sort(method: str, keys: jax.Array, payload: jax.Array) -> jax.Array:
    """Sort by the permutation matrix of softjax."""
    import softjax

    options = {"softness": 1 / CERTAINTY, "method": method, "standardize": False}
    return softjax.argsort(keys, axis=0, **options) @ payload


def problem(*shape: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Draw keys ``shape`` and a payload with one more axis."""
    keys = jax.random.normal(jax.random.key(0), shape)
    return keys, jax.random.normal(jax.random.key(1), (*shape, width))


def measure(facts: Facts, asked: Asked) -> list[Line]:
    """Time all methods on one list, or on a batch of lists of images."""
    # Images are data: the gradient goes to the keys, as in training a key network.
    images = "batch" in facts
    shape = (facts["batch"], facts["n"]) if images else (facts["n"],)
    arguments = problem(*shape, width=facts["width"] if images else WIDTH)
    programs, lines = {}, []
    for name, sort in methods(facts["n"]).items():
        whole = jax.vmap(sort) if images else sort

        def loss(keys: jax.Array, payload: jax.Array, sort: Sort = whole) -> jax.Array:
            return jnp.sum(jnp.square(sort(keys, payload)))

        slope = jax.value_and_grad(loss, argnums=0 if images else (0, 1))
        program, seconds = compiled(slope, *arguments)
        size = temporary_bytes(program)
        lines.append({"method": name, "bytes": size, "milliseconds": None})
        if size <= LIMIT_GIB * 2**30:
            programs[name] = partial(program, *arguments)
            lines[-1]["compile_seconds"] = round(seconds, 2)
    repeats = min(asked.repeats, 3 if facts["n"] >= 2**16 else 9)
    times = interleaved(programs, repeats=repeats)
    return [
        line
        | ({"milliseconds": round(times[name], 4)} if (name := line["method"]) in times else {})
        for line in lines
    ]
