"""A pruned kernel, multiplied as it is and as sparse entries."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from benchmarks.timing import interleaved
from sparse_hyper_jax.ops import SparseEntries, from_dense, sparse_multiply, to_bcoo
from sparse_hyper_jax.pruning import ConstantFanIn, apply_masks, magnitude_masks


def measure(facts: Facts, asked: Asked) -> Line:
    """Time all ways of one product."""
    width, batch = facts["width"], facts["batch"]
    keys = jax.random.split(jax.random.key(width))
    kernel = jax.random.normal(keys[0], (width, width))
    mask = magnitude_masks(kernel, facts["density"], pattern=ConstantFanIn())
    masked, x = apply_masks(kernel, mask), jax.random.normal(keys[1], (batch, width))
    entries, turned = from_dense(kernel.T, mask=mask.T), jnp.asarray(x.T)
    matrix = to_bcoo(entries, (width, width))
    matrix.indices_sorted = matrix.unique_indices = True

    def multiply(entries: SparseEntries, x: jax.Array, **promise: bool) -> jax.Array:
        return sparse_multiply(*entries, x, (width,), **promise)

    ways: dict[str, tuple[Callable[..., jax.Array], Any, jax.Array]] = {
        "dense": (lambda kernel, x: x @ kernel, masked, x),
        "sorted": (partial(multiply, indices_are_sorted=True), entries, turned),
        "row layout": (partial(multiply, row_layout=True), entries, turned),
        "BCOO": (lambda matrix, x: matrix @ x, matrix, turned),
        "BCSR": (lambda matrix, x: matrix @ x, sparse.BCSR.from_bcoo(matrix), turned),
    }
    calls = {name: partial(jax.jit(way), *given) for name, (way, *given) in ways.items()}
    expected = np.asarray(calls["dense"]())
    for name, call in calls.items():
        got = np.asarray(call()) if name == "dense" else np.asarray(call()).T
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
    times = interleaved(calls, repeats=asked.repeats)
    return {"milliseconds": {name: round(time, 4) for name, time in times.items()}}
