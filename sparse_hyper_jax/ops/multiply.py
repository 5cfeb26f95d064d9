"""Sparse entries to output: a sparse tensor times a dense one."""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.ops.device_axes import explicit_axes
from sparse_hyper_jax.ops.duplicates import flat_index
from sparse_hyper_jax.ops.entrance import enter_entries
from sparse_hyper_jax.ops.inside import check_in_range, clip_inside
from sparse_hyper_jax.ops.products import spmm
from sparse_hyper_jax.precision import sum_dtype
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
    multiplied and summed in float32, whole numbers by whole numbers exactly, complex ones as such.

    Args:
        indices: int ``(n, R)``: ``len(out_shape)`` output columns, then the input columns. An entry
            with an index outside is padding: its value counts as 0 and has slope 0. It is read at
            the edge: a NaN or infinity in ``x`` there reaches the output cell at the edge.
        values: ``(n,)``.
        x: ``(*in_shape, *features)``, where ``in_shape`` has ``R - len(out_shape)`` axes.
        out_shape: lengths of the output axes; ``()`` for a scalar output.
        row_layout: promise that the entries are grouped by output cell in row-major order, the
            same number for every cell; the sum is then a reshape, without any scatter.
        indices_are_sorted: promise that the flat output index never decreases.
        debug: check by ``checkify`` that all indices are in range.

    Returns:
        ``(*out_shape, *features)`` in the dtype of ``x``, or its complex counterpart for complex
        values; if ``x`` holds integers in that of ``values``, if both do in one of 32 bits or more.

    Raises:
        ValueError: ranks that do not fit, sides of 2**31 cells or more, or a row layout whose
            number of entries is no multiple of the number of output cells.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> indices, values = jnp.array([[0, 2], [1, 0], [1, 1]]), jnp.array([1.0, 10.0, 100.0])
        >>> ops.sparse_multiply(indices, values, jnp.array([1.0, 2.0, 3.0]), (2,)).tolist()
        [3.0, 210.0]
    """
    out_shape = checks.check_index_shape("out_shape", out_shape)
    x = as_array("x", x, "numbers")
    entries = enter_entries((indices, values))
    shape = (*out_shape, *_in_shape(entries.indices, x, out_shape))
    check_sides(out_shape, shape[len(out_shape) :])
    if checks.check_flag("row_layout", row_layout):
        _check_rows(len(entries.values), math.prod(out_shape))
    is_sorted = checks.check_flag("indices_are_sorted", indices_are_sorted)
    if checks.check_flag("debug", debug):
        check_in_range(entries.indices, shape)
    indices, inside = clip_inside(entries.indices, shape)
    values = jnp.where(inside, entries.values, 0)
    layout = "rows" if row_layout else "sorted" if is_sorted else "any"
    return contract(SparseEntries(indices, values), x, out_shape, layout=layout, debug=False)


def contract(
    entries: SparseEntries, x: jax.Array, out_shape: tuple[int, ...], *, layout: str, debug: bool
) -> jax.Array:
    """Do what :func:`sparse_multiply` says for int32 indices inside, without checks.

    ``layout`` is that of :func:`spmm`.
    """
    indices, values = entries
    out_rank = len(out_shape)
    in_rank = indices.shape[1] - out_rank
    in_shape, features = x.shape[:in_rank], x.shape[in_rank:]
    if debug:
        check_in_range(indices, (*out_shape, *in_shape))
    if spread := [axis for axis in range(in_rank, x.ndim) if explicit_axes(x, axis)[1] is not None]:
        # Features that lie on several devices do not become one axis with others.
        axis = spread[-1]
        one = partial(contract, entries, out_shape=out_shape, layout=layout, debug=False)
        return jax.vmap(one, in_axes=axis, out_axes=axis - in_rank + out_rank)(x)
    dtype = sum_dtype(x, values)
    y = spmm(
        flat_index(indices[:, :out_rank], out_shape),
        flat_index(indices[:, out_rank:], in_shape),
        values.astype(dtype),
        # Widened before it is read: the gradient is a sum, which 16 bits would cut off.
        x.astype(dtype).reshape(math.prod(in_shape), math.prod(features)),
        out_cells=math.prod(out_shape),
        layout=layout,
    )
    return y.astype(product_dtype(x.dtype, values.dtype)).reshape(*out_shape, *features)


def product_dtype(x: jnp.dtype, values: jnp.dtype) -> jnp.dtype:
    """Give the dtype of a product, of which :func:`sparse_multiply` tells."""
    if not jnp.issubdtype(x, jnp.inexact):
        return values if jnp.issubdtype(values, jnp.inexact) else sum_dtype(x, values)
    if jnp.issubdtype(values, jnp.complexfloating):
        return np.result_type(sum_dtype(x), np.complex64)
    return x


def check_sides(out_shape: tuple[int, ...], in_shape: tuple[int, ...]) -> None:
    """Raise unless each side of a sparse tensor, alone, can be counted by int32.

    Raises:
        ValueError: a side of 2**31 cells or more.
    """
    checks.check_flat_size("out_shape", out_shape)
    checks.check_flat_size("input shape", in_shape)


def _check_rows(count: int, out_cells: int) -> None:
    checks.require(
        count % out_cells == 0,
        f"{count} entries for {out_cells} output cells in row layout",
        "the same number of entries for every output cell",
        "pad the rows with entries of value 0 or leave row_layout at False",
    )


def _in_shape(indices: jax.Array, x: jax.Array, out_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Give the lengths of the contracted axes of ``x``: one per column that no output axis has."""
    in_rank = indices.shape[1] - len(out_shape)
    checks.require(
        0 <= in_rank <= x.ndim,
        f"indices with {indices.shape[1]} columns, out_shape {out_shape} and x of shape {x.shape}",
        "one column per output axis, then one per contracted axis of x",
        "add the missing columns or change out_shape",
    )
    return x.shape[:in_rank]
