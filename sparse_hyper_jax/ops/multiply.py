"""Sparse entries to output: a sparse tensor times a dense one."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from sparse_hyper_jax import checks
from sparse_hyper_jax.ops.duplicates import flat_index
from sparse_hyper_jax.ops.products import spmm
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.types import SparseEntries


def sparse_multiply(
    indices: jax.Array,
    values: jax.Array,
    x: jax.Array,
    out_shape: Sequence[int],
    *,
    row_layout: bool = False,
    indices_are_sorted: bool = False,
    debug: bool = False,
) -> jax.Array:
    """Contract a sparse tensor with the leading axes of ``x``.

    ``y[o, ...] = sum over entries p with out(p) = o of values_p x[in(p), ...]``; entries with
    equal indices add up. Axes of ``x`` behind the contracted ones are features: a batch that shares
    the sparse tensor goes there too, as the last and hence contiguous axis. Inputs of 16 bits are
    multiplied and summed in float32.

    Args:
        indices: int32 ``(n, R)``: ``len(out_shape)`` output columns, then the input columns.
        values: ``(n,)``.
        x: ``(*in_shape, *features)``, where ``in_shape`` has ``R - len(out_shape)`` axes.
        out_shape: lengths of the output axes; ``()`` for a scalar output.
        row_layout: promise that the entries are grouped by output cell in row-major order, the
            same number for every cell; the sum is then a reshape, without any scatter.
        indices_are_sorted: promise that the flat output index never decreases.
        debug: check by ``checkify`` that all indices are in range. Without it a wrong index reads
            or writes a wrong cell, also of another instance under ``vmap``, or none.

    Returns:
        ``(*out_shape, *features)`` in the dtype of ``x`` (of ``values`` if ``x`` holds integers).

    Raises:
        ValueError: ranks that do not fit, sides of 2**31 cells or more, or a row layout whose
            number of entries is no multiple of the number of output cells.
    """
    out_shape = checks.check_index_shape("out_shape", out_shape)
    indices, values, x = jnp.asarray(indices), jnp.asarray(values), jnp.asarray(x)
    in_shape = _check_entries(indices, values, x, out_shape)
    check_sides(out_shape, in_shape)
    if row_layout:
        _check_rows(len(values), math.prod(out_shape))
    layout = "rows" if row_layout else "sorted" if indices_are_sorted else "any"
    return contract(SparseEntries(indices, values), x, out_shape, layout=layout, debug=debug)


def contract(
    entries: SparseEntries, x: jax.Array, out_shape: tuple[int, ...], *, layout: str, debug: bool
) -> jax.Array:
    """Do what :func:`sparse_multiply` says, without checks; ``layout`` as in :func:`spmm`."""
    indices, values = entries
    out_rank = len(out_shape)
    in_rank = indices.shape[1] - out_rank
    in_shape, features = x.shape[:in_rank], x.shape[in_rank:]
    if debug:
        check_in_range(indices, (*out_shape, *in_shape))
    sum_dtype = wide_dtype(x.dtype, values.dtype)
    y = spmm(
        flat_index(indices[:, :out_rank], out_shape),
        flat_index(indices[:, out_rank:], in_shape),
        values.astype(sum_dtype),
        # Widened before it is read: the gradient is a sum, which 16 bits would cut off.
        x.astype(sum_dtype).reshape(math.prod(in_shape), math.prod(features)),
        out_cells=math.prod(out_shape),
        layout=layout,
    )
    return y.astype(product_dtype(x.dtype, values.dtype)).reshape(*out_shape, *features)


def product_dtype(x: jnp.dtype, values: jnp.dtype) -> jnp.dtype:
    """Give the dtype of a product: that of ``x``, or that of the values if ``x`` is of integers."""
    return x if jnp.issubdtype(x, jnp.inexact) else values


def check_sides(out_shape: tuple[int, ...], in_shape: tuple[int, ...]) -> None:
    """Raise unless each side of a sparse tensor, alone, can be counted by int32.

    Raises:
        ValueError: a side of 2**31 cells or more.
    """
    checks.check_flat_size("out_shape", out_shape)
    checks.check_flat_size("input shape", in_shape)


def check_in_range(indices: jax.Array, shape: Sequence[int]) -> None:
    """Check by ``checkify`` that every index lies inside ``shape``.

    Wrap the caller in ``jax.experimental.checkify.checkify`` under ``jit``; outside of ``jit`` the
    check raises at once.

    Args:
        indices: int ``(n, R)``.
        shape: the ``R`` lengths.
    """
    # Only then does an index above the largest int32 length count as too large.
    sizes = jnp.asarray(shape, jnp.int32)
    checkify.check(
        jnp.all((indices >= 0) & (indices < sizes)),
        "found indices from {low} to {high} (least and largest per column); expected them inside "
        + f"shape {tuple(shape)}; check how they were made",
        low=jnp.min(indices, axis=0, initial=2**31 - 1),
        high=jnp.max(indices, axis=0, initial=-1),
    )


def _check_rows(count: int, out_cells: int) -> None:
    checks.require(
        count % out_cells == 0,
        f"{count} entries for {out_cells} output cells in row layout",
        "the same number of entries for every output cell",
        "pad the rows with entries of value 0 or leave row_layout at False",
    )


def _check_entries(
    indices: jax.Array, values: jax.Array, x: jax.Array, out_shape: tuple[int, ...]
) -> tuple[int, ...]:
    checks.check_shape("indices", indices, (None, None), "(n, R): one row per entry")
    checks.check_shape("values", values, indices.shape[:1], "one value per row of indices")
    in_rank = indices.shape[1] - len(out_shape)
    checks.require(
        0 <= in_rank <= x.ndim,
        f"indices with {indices.shape[1]} columns, out_shape {out_shape} and x of shape {x.shape}",
        "one column per output axis, then one per contracted axis of x",
        "add the missing columns or change out_shape",
    )
    checks.check_integers("indices", indices)
    return x.shape[:in_rank]
