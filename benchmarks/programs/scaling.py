"""A training step of the identity, with many tuples in several ways or with a dense matrix."""

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.lines import Facts, Line
from benchmarks.programs.identity_step import (
    BATCH,
    SAMPLING,
    bound,
    identity_loss,
    make_step,
    raw_parameters,
    start,
)
from benchmarks.runner import Asked
from benchmarks.timing import compiled, interleaved, temporary_bytes
from sparse_hyper_jax import ops


def dense_loss(matrix: jax.Array, key: jax.Array) -> jax.Array:
    """Compare a batch with its product with a dense matrix."""
    x = jax.random.normal(key, (len(matrix), BATCH))
    return jnp.mean(jnp.square(matrix @ x - x))


def problem(way: str, size: int) -> tuple[Any, Any]:
    """Give parameters and their loss."""
    if way == "dense matrix":
        return jnp.zeros((size, size)), dense_loss
    raw = raw_parameters(size)
    options: dict[str, Any] = {"block_size": size} if way == "table at once" else {}
    if way == "nearby":
        # Little room: these tuples hardly move while they are timed.
        shape, key = (size, size), jax.random.key(1)
        options = {"locality": ops.fit_locality(key, bound(raw), shape, slack=1.1, **SAMPLING)}
    return raw, partial(identity_loss, **options)


def measure(facts: Facts, asked: Asked) -> Line:
    """Measure one way at one size."""
    begin = time.perf_counter()
    parameters, loss = problem(facts["way"], facts["size"])
    fit_seconds, key = time.perf_counter() - begin, jax.random.key(1)
    held = [start(parameters), jnp.zeros(())]
    step, compile_seconds = compiled(make_step(loss), held[0], key, donate_argnums=0)

    def advance() -> jax.Array:
        held[:] = step(held[0], key)
        return held[1]

    repeats = min(asked.repeats, max(3, 2**15 // facts["size"]))
    milliseconds = interleaved({"step": advance}, repeats=repeats)["step"]
    if not jnp.isfinite(held[1]):
        raise FloatingPointError(f"found a loss of {held[1]} with {facts}")
    return {
        "milliseconds": round(milliseconds, 3),
        "temporary_bytes": temporary_bytes(step),
        "compile_seconds": round(compile_seconds, 2),
        "fit_seconds": round(fit_seconds, 2),
    }
