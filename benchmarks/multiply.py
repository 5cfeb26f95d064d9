"""The multiply against BCOO, scipy's CSR and a dense product, forward and with its gradients.

    python benchmarks/multiply.py [--sizes 1000 10000 100000] [--batches 64]

One JSON line per size, number of entries and batch: median milliseconds of ``W x`` for an n x n
matrix that a batch shares, and of value and gradient with respect to the entries and ``x`` (dense:
the whole matrix and ``x``), called in turn. Building the formats is not counted; the dense product
is left out where its matrix has more than 2**24 cells. The entries are sorted by row and distinct,
which only BCOO is told.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.experimental import sparse
from report import Report, interleaved, read_lines

from sparse_hyper_jax.ops import SparseEntries, sparse_multiply, to_bcoo, to_dense

NAME = "multiply"
COUNTS = (1_000, 10_000, 100_000, 1_000_000)
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
    matrix = to_bcoo(entries, (size, size))

    def bcoo(values: jax.Array, x: jax.Array) -> jax.Array:
        options = {"indices_sorted": True, "unique_indices": True}
        return sparse.BCOO((values, matrix.indices), shape=matrix.shape, **options) @ x

    def ours(values: jax.Array, x: jax.Array) -> jax.Array:
        return sparse_multiply(entries.indices, values, x, (size,))

    named = {"sparse_multiply": (ours, entries.values), "bcoo": (bcoo, entries.values)}
    if size * size <= DENSE_CELLS:
        dense = to_dense(entries, (size, size))
        named["dense"] = (lambda weights, x: weights @ x, dense)
    return named


def measure(size: int, count: int, batch: int, repeats: int, report: Report) -> None:
    """Write the line of one setting."""
    entries = make_entries(size, count, seed=size)
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
        entries=count,
        batch=batch,
        forward_ms={k: round(v, 4) for k, v in interleaved(forward, repeats=repeats).items()},
        gradient_ms={k: round(v, 4) for k, v in interleaved(gradient, repeats=repeats).items()},
    )


def table() -> str:
    """Write our milliseconds, and how many times as long the others take."""
    rows = [
        "| n x n, entries, batch | forward, ms | BCOO | scipy CSR | dense "
        "| with gradients, ms | BCOO | dense |",
        "|---" * 8 + "|",
    ]
    for line in read_lines(NAME):
        cells = [f"{line['size']:,}, {line['entries']:,}, {line['batch']}"]
        for times, others in (
            (line["forward_ms"], ("bcoo", "scipy_csr", "dense")),
            (line["gradient_ms"], ("bcoo", "dense")),
        ):
            ours = times["sparse_multiply"]
            cells.append(f"{ours:.3g}")
            cells += [f"x {times[name] / ours:.2g}" if times.get(name) else "-" for name in others]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--entries", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--batches", type=int, nargs="+", default=[64])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--append", action="store_true", help="keep the lines of earlier calls")
    parser.add_argument("--table", action="store_true", help="only print the table")
    asked = parser.parse_args()
    if not asked.table:
        report = Report(NAME, append=asked.append)
        for size in asked.sizes:
            for count in (count for count in asked.entries if count <= size * size):
                for batch in asked.batches:
                    measure(size, count, batch, asked.repeats, report)
    print(table())


if __name__ == "__main__":
    main()
