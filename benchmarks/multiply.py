"""The multiply against BCOO, a dense product and scipy's CSR, forward and with its gradients.

    python benchmarks/multiply.py [--sizes 256 1024 4096]

One JSON line per size, density and batch: median milliseconds of ``W x`` for an n x n matrix that a
batch shares, and of value and gradient with respect to the entries and ``x`` (dense: the whole
matrix and ``x``). Building the formats is not counted.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.experimental import sparse
from report import Report, interleaved

from sparse_hyper_jax.ops import SparseEntries, sparse_multiply, to_bcoo, to_dense

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
    matrix = to_bcoo(entries, (size, size))

    def bcoo(values: jax.Array, x: jax.Array) -> jax.Array:
        options = {"indices_sorted": True, "unique_indices": True}
        return sparse.BCOO((values, matrix.indices), shape=matrix.shape, **options) @ x

    def ours(values: jax.Array, x: jax.Array, **options: Any) -> jax.Array:
        return sparse_multiply(entries.indices, values, x, (size,), **options)

    return {
        "sparse_multiply": (ours, entries.values),
        "sparse_multiply_sorted": (
            lambda values, x: ours(values, x, indices_are_sorted=True),
            entries.values,
        ),
        "bcoo": (bcoo, entries.values),
        "dense": (lambda weights, x: weights @ x, to_dense(entries, (size, size))),
    }


def measure(size: int, density: float, batch: int, repeats: int, report: Report) -> None:
    """Write the line of one setting."""
    entries = make_entries(size, int(size * size * density), seed=size)
    x = jax.random.normal(jax.random.key(0), (size, batch))
    host = scipy.sparse.csr_array(
        (np.asarray(entries.values), np.asarray(entries.indices).T), shape=(size, size)
    )
    host_x = np.asarray(x)
    forward, gradient = {"scipy_csr": lambda: host @ host_x}, {}
    expected = host @ host_x
    for name, (product, weights) in products(entries, size).items():
        compiled = jax.jit(product)
        np.testing.assert_allclose(compiled(weights, x), expected, rtol=1e-3, atol=1e-3)

        def loss(weights: Any, x: jax.Array, product: Product = product) -> jax.Array:
            return jnp.sum(jnp.square(product(weights, x)))

        value_and_grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
        forward[name] = lambda compiled=compiled, weights=weights: compiled(weights, x)
        gradient[name] = lambda call=value_and_grad, weights=weights: call(weights, x)
    report.add(
        size=size,
        density=density,
        batch=batch,
        entries=len(entries.values),
        forward_ms={k: round(v, 4) for k, v in interleaved(forward, repeats=repeats).items()},
        gradient_ms={k: round(v, 4) for k, v in interleaved(gradient, repeats=repeats).items()},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--densities", type=float, nargs="+", default=[0.001, 0.01, 0.05])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--repeats", type=int, default=20)
    asked = parser.parse_args()
    report = Report("multiply")
    for size in asked.sizes:
        for density in asked.densities:
            for batch in asked.batches:
                measure(size, density, batch, asked.repeats, report)


if __name__ == "__main__":
    main()
