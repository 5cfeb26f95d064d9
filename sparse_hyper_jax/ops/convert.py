"""Sparse entries to and from dense arrays and JAX's BCOO format."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.experimental import sparse

from sparse_hyper_jax import checks
from sparse_hyper_jax.ops.duplicates import flat_index
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.types import SparseEntries


def to_dense(entries: SparseEntries, shape: Sequence[int]) -> jax.Array:
    """Write the entries into a dense array; equal indices add up.

    Args:
        entries: ``n`` entries of rank ``R``.
        shape: the ``R`` lengths of the tensor.

    Returns:
        array of ``shape``; 16-bit values are summed in float32.

    Raises:
        ValueError: a rank that does not match, or a dense size of 2**31 cells or more.
    """
    shape = _check(entries, shape)
    cells = checks.check_flat_size("shape", shape)
    values = at_least_float32(entries.values)
    dense = jax.ops.segment_sum(values, flat_index(entries.indices, shape), cells)
    return dense.astype(entries.values.dtype).reshape(shape)


def to_bcoo(entries: SparseEntries, shape: Sequence[int]) -> sparse.BCOO:
    """Wrap the entries as a ``jax.experimental.sparse.BCOO`` matrix, without copying.

    Args:
        entries: ``n`` entries of rank ``R``.
        shape: the ``R`` lengths of the tensor.

    Returns:
        BCOO of ``shape`` with ``nse = n``; duplicates stay, as BCOO allows.

    Raises:
        ValueError: a rank that does not match.
    """
    shape = _check(entries, shape)
    return sparse.BCOO((entries.values, entries.indices), shape=shape)


def from_bcoo(matrix: sparse.BCOO) -> SparseEntries:
    """Take the entries out of a BCOO matrix without batch or dense axes.

    BCOO pads with indices outside the matrix; these become entries of value 0 on cell 0, because
    here an index must stay inside.

    Args:
        matrix: BCOO with ``n_batch = n_dense = 0``.

    Returns:
        ``nse`` entries.

    Raises:
        ValueError: batch or dense axes.
    """
    checks.require(
        matrix.n_batch == 0 and matrix.n_dense == 0,
        f"a BCOO matrix with n_batch={matrix.n_batch} and n_dense={matrix.n_dense}",
        "one without batch and dense axes",
        "vmap from_bcoo over the batch, or convert with bcoo_update_layout",
    )
    inside = jnp.all(matrix.indices < jnp.asarray(matrix.shape), axis=1)
    indices = jnp.where(inside[:, None], matrix.indices, 0).astype(jnp.int32)
    return SparseEntries(indices, jnp.where(inside, matrix.data, 0))


def _check(entries: SparseEntries, shape: Sequence[int]) -> tuple[int, ...]:
    shape = checks.check_index_shape("shape", shape)
    meaning = "(n, R): one column per axis of shape"
    checks.check_shape("indices", entries.indices, (None, len(shape)), meaning)
    checks.check_integers("indices", entries.indices)
    checks.check_shape("values", entries.values, entries.indices.shape[:1], "one value per row")
    return shape
