"""A learned sparse matrix as a list of edges, as libraries for graphs take it."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_instance
from sparse_hyper_jax.ops.inside import is_inside
from sparse_hyper_jax.types import SparseEntries


class Edges(NamedTuple):
    """Edges from input cells to output cells; cells are counted in the order of their array.

    Attributes:
        senders: ``(n,)`` int32, input cells; -1 marks padding.
        receivers: ``(n,)`` int32, output cells; -1 likewise.
        weights: ``(n,)``, 0 for padding.

    Example:
        >>> from sparse_hyper_jax import SparseEntries, explain
        >>> entries = SparseEntries(jnp.array([[0, 2]]), jnp.array([3.0]))
        >>> explain.to_edges(entries, (2,), (4,)).senders.tolist()
        [2]
    """

    senders: jax.Array
    receivers: jax.Array
    weights: jax.Array


def to_edges(
    entries: SparseEntries, output_shape: Sequence[int], input_shape: Sequence[int]
) -> Edges:
    """Write sparse entries as edges: senders, receivers and weights.

    Args:
        entries: ``n`` entries; indices of output axes first, then of input axes.
        output_shape: lengths of the output axes.
        input_shape: lengths of the input axes.

    Returns:
        :class:`Edges`; an entry outside is padding.

    Raises:
        ValueError: ranks that do not fit, or a side of 2**31 cells or more.

    Example:
        >>> from sparse_hyper_jax import SparseEntries, explain
        >>> entries = SparseEntries(jnp.array([[1, 0, 2], [9, 0, 0]]), jnp.array([3.0, 4.0]))
        >>> [one.tolist() for one in explain.to_edges(entries, (2,), (3, 4))]
        [[2, -1], [1, -1], [3.0, 0.0]]
    """
    check_instance("entries", entries, SparseEntries)
    output_shape = checks.check_index_shape("output_shape", output_shape)
    input_shape = checks.check_index_shape("input_shape", input_shape)
    indices, values = as_array("indices", entries.indices), as_array("values", entries.values)
    shape = (*output_shape, *input_shape)
    checks.check_integers("indices", indices)
    checks.check_last_axis("indices", indices, len(shape))
    checks.require(
        indices.ndim == 2 and values.shape == indices.shape[:1],
        f"indices of shape {indices.shape} and values of {values.shape}",
        "indices (n, R) and values (n,)",
        "pass the entries of one tensor",
    )
    for name, side in (("output_shape", output_shape), ("input_shape", input_shape)):
        checks.check_flat_size(name, side)
    inside = is_inside(indices, shape)
    split = len(output_shape)
    receivers, senders = (
        jnp.where(inside, _flat(part, side), -1)
        for part, side in ((indices[:, :split], output_shape), (indices[:, split:], input_shape))
    )
    return Edges(senders, receivers, jnp.where(inside, values, 0))


def _flat(indices: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Count cells in the order of their array."""
    flat = jnp.zeros(len(indices), jnp.int32)
    for axis, length in enumerate(shape):
        flat = flat * length + indices[:, axis].astype(jnp.int32)
    return flat
