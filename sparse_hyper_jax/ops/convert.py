"""Sparse entries to and from dense arrays and JAX's BCOO format."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.experimental import sparse

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import check_instance
from sparse_hyper_jax.ops.device_axes import spread_by
from sparse_hyper_jax.ops.duplicates import flat_index
from sparse_hyper_jax.ops.entrance import enter_entries
from sparse_hyper_jax.ops.inside import check_in_range, clip_inside, is_inside
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
