"""The multiply, BCOO, scipy's CSR and a dense product, forward and with gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from benchmarks.timing import interleaved
from sparse_hyper_jax.ops import SparseEntries, sparse_multiply, to_bcoo, to_dense

DENSE_CELLS = 2**24
Product = Callable[[Any, jax.Array], jax.Array]


def make_entries(size: int, count: int, seed: int) -> SparseEntries:
    """Draw distinct cells, sorted by row, with normal values."""
    generator = np.random.default_rng(seed)
    flat = np.sort(generator.choice(size * size, count, replace=False))
    indices = np.stack(np.divmod(flat, size), axis=1).astype(np.int32)
    values = generator.standard_normal(count, np.float32)
    return SparseEntries(jnp.asarray(indices), jnp.asarray(values))


def products(entries: SparseEntries, size: int) -> dict[str, tuple[Product, Any]]:
    """Name the competitors: a product, and what it multiplies with."""
    from jax.experimental import sparse

    matrix = to_bcoo(entries, (size, size))

    def bcoo(values: jax.Array, x: jax.Array) -> jax.Array:
        options = {"indices_sorted": True, "unique_indices": True}
        return sparse.BCOO((values, matrix.indices), shape=matrix.shape, **options) @ x

    def ours(values: jax.Array, x: jax.Array) -> jax.Array:
        return sparse_multiply(entries.indices, values, x, (size,))

    named: dict[str, tuple[Product, Any]] = {
        "sparse_multiply": (ours, entries.values),
        "bcoo": (bcoo, entries.values),
    }
    if size * size <= DENSE_CELLS:
        named["dense"] = (lambda weights, x: weights @ x, to_dense(entries, (size, size)))
    return named


def gradients(product: Product) -> Callable[[Any, jax.Array], Any]:
    """Make value and gradient of the sum of squares of a product."""
    return jax.value_and_grad(lambda *both: jnp.sum(jnp.square(product(*both))), argnums=(0, 1))


def measure(facts: Facts, asked: Asked) -> Line:
    """Compare all of them on one matrix."""
    import scipy.sparse

    size, batch = facts["size"], facts["batch"]
    entries = make_entries(size, facts["entries"], seed=size)
    x = jax.random.normal(jax.random.key(0), (size, batch))
    parts = (np.asarray(entries.values), np.asarray(entries.indices).T)
    host, host_x = scipy.sparse.csr_array(parts, shape=(size, size)), np.asarray(x)
    forward: dict[str, Callable[[], Any]] = {"scipy_csr": lambda: host @ host_x}
    gradient = {}
    for name, (product, weights) in products(entries, size).items():
        forward[name] = partial(jax.jit(product), weights, x)
        gradient[name] = partial(jax.jit(gradients(product)), weights, x)
        np.testing.assert_allclose(forward[name](), host @ host_x, rtol=1e-3, atol=1e-3)
    return {
        f"{kind}_ms": {k: round(v, 4) for k, v in interleaved(calls, repeats=asked.repeats).items()}
        for kind, calls in (("forward", forward), ("gradient", gradient))
    }
