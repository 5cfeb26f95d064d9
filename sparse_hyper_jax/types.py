"""The data that moves through the library: continuous tuples in, sparse entries out."""

from typing import NamedTuple

import jax
from jax import export

LEAST_VARIANCE = 1e-12
"""Smaller variances count as this one: far below any cell, yet safe to divide by in float32."""


class ContinuousTuples(NamedTuple):
    """Gaussians over index space, each with a value: a sparse tensor that can be learned.

    Attributes:
        means: ``(k, r)`` float, in index units; axis ``c`` of the index space has cells
            ``0 .. S_c - 1``, so a mean of 2.0 sits exactly on cell 2.
        variances: ``(k, r)`` positive float, in squared index units. A variance, not a standard
            deviation.
        values: ``(k,)`` float, the weight that each tuple shares out among integer cells.

    Example:
        >>> from sparse_hyper_jax import ContinuousTuples, ops
        >>> tuples = ContinuousTuples(
        ...     means=jnp.array([[1.0, 2.0]]), variances=jnp.array([[0.1, 0.1]]), values=jnp.ones(1)
        ... )
        >>> ops.to_dense(ops.settle(tuples, (2, 3)), (2, 3)).tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """

    means: jax.Array
    variances: jax.Array
    values: jax.Array


class SparseEntries(NamedTuple):
    """The non-zeros of a sparse tensor, in coordinate form and with a static count.

    Equal indices are allowed: their values add up. An entry of value zero is padding.

    Attributes:
        indices: ``(n, R)`` int32, one row per non-zero: output axes first, then input axes.
        values: ``(n,)`` float.

    Example:
        >>> from sparse_hyper_jax import SparseEntries, ops
        >>> entries = SparseEntries(jnp.array([[0, 1], [1, 1], [1, 1]]), jnp.array([2.0, 3.0, 4.0]))
        >>> ops.to_dense(entries, (2, 2)).tolist()
        [[0.0, 2.0], [0.0, 7.0]]
    """

    indices: jax.Array
    values: jax.Array


for _kind in (ContinuousTuples, SparseEntries):
    # So that an exported program that takes or gives them can be written to a file.
    export.register_namedtuple_serialization(
        _kind, serialized_name=f"sparse_hyper_jax.{_kind.__name__}"
    )
