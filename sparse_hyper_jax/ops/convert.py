"""Sparse entries to and from dense arrays and JAX's BCOO format."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.experimental import sparse

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_instance, check_same_shape
from sparse_hyper_jax.ops.device_axes import spread_by
from sparse_hyper_jax.ops.duplicates import flat_index
from sparse_hyper_jax.ops.entrance import enter_entries
from sparse_hyper_jax.ops.inside import check_in_range, clip_inside, is_inside
from sparse_hyper_jax.placement import gathered
from sparse_hyper_jax.precision import sum_dtype
from sparse_hyper_jax.types import SparseEntries


def to_dense(entries: SparseEntries, shape: Sequence[int], *, debug: bool = False) -> jax.Array:
    """Write the entries into a dense array; equal indices add up.

    Args:
        entries: ``n`` entries of rank ``R``. One whose index lies outside of ``shape`` is padding:
            it counts for nothing and has slope 0.
        shape: the ``R`` lengths of the tensor.
        debug: check by ``checkify`` that all indices lie inside.

    Returns:
        array of ``shape`` in the dtype of the values. Those of 16 bits are summed in float32, whole
        numbers exactly.

    Raises:
        ValueError: a rank that does not match, or a dense size of 2**31 cells or more.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> entries = ops.SparseEntries(jnp.array([[0, 1], [1, 2], [1, 2]]), jnp.arange(1.0, 4.0))
        >>> ops.to_dense(entries, (2, 3)).tolist()
        [[0.0, 1.0, 0.0], [0.0, 0.0, 5.0]]
    """
    shape = checks.check_index_shape("shape", shape)
    cells = checks.check_flat_size("shape", shape)
    indices, values = enter_entries(entries, len(shape))
    if checks.check_flag("debug", debug):
        check_in_range(indices, shape)
    indices, inside = clip_inside(indices, shape)
    wide = jnp.where(inside, values.astype(sum_dtype(values)), 0)
    places = flat_index(indices, shape)
    dense = spread_by(jax.ops.segment_sum(wide, places, cells), places)
    return dense.astype(values.dtype).reshape(shape)


def from_dense(
    dense: jax.Array, *, mask: jax.Array | None = None, count: int | None = None
) -> SparseEntries:
    """Take the entries out of a dense array, for instance those of a pruned kernel.

    They come in row-major order, so that ``sparse_multiply(..., indices_are_sorted=True)`` may be
    promised; where every row has the same number, ``row_layout=True`` too. A kernel ``(inputs,
    outputs)`` has to be transposed first: output columns come before input columns there.

    Args:
        dense: array of one axis or more.
        mask: bool of the same shape, which entries; None: those that are not 0, which leaves out
            kept weights that happen to be 0.
        count: number ``n`` of entries, needed where the mask is traced. Those in excess of what is
            true are padding of value 0 at the index ``dense.shape``. Fewer are refused where the
            mask is known; where it is not, the values are NaN (0 for whole numbers).

    Returns:
        ``n`` entries of as many columns as the array has axes, values in its dtype; gradients reach
        the array.

    Raises:
        ValueError: a scalar, a mask of another shape or dtype, 2**31 cells or more, a traced mask
            without a count, or a count below the number of entries that are true.

    Example:
        >>> from sparse_hyper_jax.ops import from_dense, sparse_multiply, to_bcoo
        >>> kernel = jnp.array([[1.0, 0.0], [3.0, 4.0]])  # of a pruned layer, inputs by outputs
        >>> entries, x = from_dense(kernel.T), jnp.array([[1.0, 10.0]])
        >>> entries.indices.tolist(), entries.values.tolist()
        ([[0, 0], [0, 1], [1, 1]], [1.0, 3.0, 4.0])
        >>> sparse_multiply(*entries, x.T, (2,), indices_are_sorted=True).T.tolist()
        [[31.0, 40.0]]
        >>> (x @ to_bcoo(from_dense(kernel), (2, 2))).tolist()
        [[31.0, 40.0]]
    """
    dense = as_array("dense", dense, "numbers")
    shape = checks.check_index_shape("the shape of dense", dense.shape)
    checks.require(dense.ndim >= 1, "dense of shape ()", "at least one axis", "give it an axis")
    cells = checks.check_flat_size("the shape of dense", shape)
    flags = dense != 0 if mask is None else as_array("mask", mask, "flags")
    check_same_shape(dense=dense, mask=flags)
    flags = jax.lax.stop_gradient(flags)
    total = jnp.sum(flags, dtype=jnp.int32)
    n = _number_of_entries(total, count, cells)
    dense, flags = gathered(dense), gathered(flags)
    (places,) = jnp.nonzero(flags.reshape(cells), size=n, fill_value=cells)
    inside = places < cells
    values = jnp.where(inside, dense.reshape(cells)[jnp.where(inside, places, 0)], 0)
    indices = jnp.stack(jnp.unravel_index(jnp.where(inside, places, 0), shape), axis=-1)
    outside = jnp.asarray(shape, jnp.int32)[None]
    indices = jnp.where(inside[:, None], indices.astype(jnp.int32), outside)
    return SparseEntries(indices, jnp.where(total > n, _unknown(dense.dtype), values))


def _number_of_entries(total: jax.Array, count: int | None, cells: int) -> int:
    """Give the static number of entries after checking that it is enough, as far as is known."""
    known = not isinstance(total, Tracer)
    checks.require(
        known or count is not None,
        "a traced mask without a count",
        "a static number of entries",
        "pass count=, for instance the number that magnitude_masks keeps",
    )
    if count is None:
        return int(total)
    return checks.check_count("count", count, least=int(total) if known else 0, most=cells)


def _unknown(dtype: jnp.dtype) -> jax.Array:
    return jnp.asarray(jnp.nan if jnp.issubdtype(dtype, jnp.inexact) else 0, dtype)


def to_bcoo(entries: SparseEntries, shape: Sequence[int], *, debug: bool = False) -> sparse.BCOO:
    """Wrap the entries as a ``jax.experimental.sparse.BCOO`` matrix.

    Args:
        entries: ``n`` entries of rank ``R``. One whose index lies outside of ``shape`` becomes
            padding as BCOO has it, of value 0 and at the index ``shape``.
        shape: the ``R`` lengths of the tensor.
        debug: check by ``checkify`` that all indices lie inside.

    Returns:
        BCOO of ``shape`` with ``nse = n``; duplicates stay, as BCOO allows.

    Raises:
        ValueError: a rank that does not match.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> entries = ops.SparseEntries(jnp.array([[0, 1], [1, 2]]), jnp.array([1.0, 2.0]))
        >>> (ops.to_bcoo(entries, (2, 3)) @ jnp.array([1.0, 10.0, 100.0])).tolist()
        [10.0, 200.0]
    """
    shape = checks.check_index_shape("shape", shape)
    indices, values = enter_entries(entries, len(shape))
    if checks.check_flag("debug", debug):
        check_in_range(indices, shape)
    clipped, inside = clip_inside(indices, shape)
    padding = jnp.broadcast_to(jnp.asarray(shape, jnp.int32), clipped.shape)
    indices = jnp.where(inside[:, None], clipped, padding)
    return sparse.BCOO((jnp.where(inside, values, 0), indices), shape=shape)


def from_bcoo(matrix: sparse.BCOO) -> SparseEntries:
    """Take the entries out of a BCOO matrix without batch or dense axes.

    BCOO pads with indices outside the matrix; these become entries of value 0 on cell 0.

    Args:
        matrix: BCOO with ``n_batch = n_dense = 0``.

    Returns:
        ``nse`` entries.

    Raises:
        ValueError: batch or dense axes.

    Example:
        >>> from jax.experimental.sparse import BCOO
        >>> from sparse_hyper_jax import ops
        >>> entries = ops.from_bcoo(BCOO.fromdense(jnp.array([[0.0, 5.0], [7.0, 0.0]])))
        >>> entries.indices.tolist(), entries.values.tolist()
        ([[0, 1], [1, 0]], [5.0, 7.0])
    """
    check_instance("matrix", matrix, sparse.BCOO)
    checks.require(
        matrix.n_batch == 0 and matrix.n_dense == 0,
        f"a BCOO matrix with n_batch={matrix.n_batch} and n_dense={matrix.n_dense}",
        "one without batch and dense axes",
        "vmap from_bcoo over the batch, or convert with bcoo_update_layout",
    )
    inside = is_inside(matrix.indices, matrix.shape)
    indices = jnp.where(inside[:, None], matrix.indices, 0).astype(jnp.int32)
    return SparseEntries(indices, jnp.where(inside, matrix.data, 0))
