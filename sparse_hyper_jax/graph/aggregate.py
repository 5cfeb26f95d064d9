"""Sum over the edges that come in: of lists of edges, or of slots for each node."""

from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.graph.entrance import (
    enter_edges,
    enter_nodes,
    enter_num_nodes,
    enter_values,
)
from sparse_hyper_jax.graph.in_edges import InEdges, enter_in_edges
from sparse_hyper_jax.ops.device_axes import spread_by
from sparse_hyper_jax.precision import wide_dtype


def aggregate(
    senders: Any, receivers: Any, values: Any, h: Any, *, num_nodes: int | None = None
) -> jax.Array:
    """Give every node the weighted sum of what comes in: ``y[i] = sum_e values[e] h[senders[e]]``.

    The sum is over the edges ``e`` with ``receivers[e] = i``; equal edges add up.

    Args:
        senders: integers ``(E,)``. An edge with a sender or receiver outside, such as -1, is
            padding: it counts for nothing, whatever its value.
        receivers: integers ``(E,)``.
        values: ``(E,)``, or ``(E, heads)`` for ``h`` of shape ``(n, heads, ...)``; None for ones.
        h: ``(n, *features)``, features of the senders.
        num_nodes: how many nodes receive, static; None for as many as send.

    Returns:
        ``(num_nodes, *features)``, float32 or wider; 0 where no edge comes in.

    Raises:
        ValueError: shapes that do not agree, or lists that hold no integers.

    Example:
        >>> from sparse_hyper_jax import graph
        >>> h = jnp.array([[1.0], [10.0], [100.0]])
        >>> graph.aggregate([0, 1, -1], [2, 2, 0], [1.0, 0.5, 9.0], h).ravel().tolist()
        [0.0, 0.0, 6.0]
    """
    h = enter_nodes("h", h)
    count = len(h) if num_nodes is None else enter_num_nodes(num_nodes)
    edges = enter_edges(senders, receivers, len(h), count)
    values = enter_values(values, edges, h)
    checks.require(
        values.shape[1:] == h.shape[1 : values.ndim],
        f"values of shape {values.shape} for h of shape {h.shape}",
        "(E,), or after the axis of edges the first axes of the features",
        "reshape values",
    )
    # Before the product: what padding reads may be NaN.
    kept = edges.kept.reshape(-1, *(1,) * (h.ndim - 1))
    rows = spread_by(h.astype(values.dtype), edges.senders)
    sent = jnp.where(kept, rows[edges.senders], 0)
    weights = values.reshape(*values.shape, *(1,) * (h.ndim - values.ndim))
    sums = jax.ops.segment_sum(sent * weights, edges.receivers, count)
    # So that its cotangent may be read at the receivers of each instance.
    return spread_by(sums, edges.receivers)


def aggregate_in_edges(edges: InEdges, values: Any, h: Any) -> jax.Array:
    """Give every node the weighted sum over its slots: ``y[i] = sum_s h[senders[i, s]] v[i, s]``.

    A gather and a sum, without a scatter: faster than :func:`aggregate` of :func:`edge_list`.

    Args:
        edges: of shape ``(n, k)``; empty slots count for nothing, whatever their value.
        values: ``(n, k)``, or matrices ``(n, k, C, O)`` of every edge, by which the last axis of
            what it carries is multiplied; None for ones.
        h: ``(n, *features)``, for matrices ``(n, ..., C)``.

    Returns:
        ``(n, *features)``, for matrices ``(n, ..., O)``; float32 or wider.

    Raises:
        ValueError: shapes that do not agree.

    Example:
        >>> from sparse_hyper_jax import graph
        >>> edges = graph.InEdges(jnp.array([[1, 2], [0, 0]]), jnp.array([[True, False]] * 2))
        >>> graph.aggregate_in_edges(edges, jnp.full((2, 2), 0.5), jnp.array([4.0, 6.0])).tolist()
        [3.0, 2.0]
    """
    h = enter_nodes("h", h)
    edges = enter_in_edges(edges, len(h))
    if values is None:
        values = jnp.ones(edges.placed.shape, wide_dtype(h))
    values = as_array("values", values)
    shape = edges.placed.shape
    fits = values.ndim == 4 and h.ndim >= 2 and values.shape[2] == h.shape[-1]
    checks.require(
        values.shape[:2] == shape and (values.ndim == 2 or fits),
        f"values of shape {values.shape} for edges of shape {shape} and h of shape {h.shape}",
        f"{shape}, or {(*shape, *h.shape[-1:], 'O')}",
        "give values one number or matrix per slot",
    )
    dtype = wide_dtype(h, values)
    placed = edges.placed.reshape(*shape, *(1,) * (values.ndim - 2))
    values = jnp.where(placed, values.astype(dtype), 0)
    placed = edges.placed.reshape(*shape, *(1,) * (h.ndim - 1))
    sent = jnp.where(placed, spread_by(h.astype(dtype), edges.senders)[edges.senders], 0)
    if values.ndim == 4:
        highest = jax.lax.Precision.HIGHEST  # or an accelerator would round to a few digits
        return jnp.einsum("nk...c,nkco->n...o", sent, values, precision=highest)
    return jnp.sum(sent * values.reshape(*shape, *(1,) * (h.ndim - 1)), axis=1)
