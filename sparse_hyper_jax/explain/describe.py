"""Where connections are, how sure that is, and how much they carry."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks, graph
from sparse_hyper_jax.entrance import as_array, check_instance
from sparse_hyper_jax.graph.in_edges import enter_in_edges
from sparse_hyper_jax.norms import norm
from sparse_hyper_jax.ops import Taps, first_occurrence, round_means
from sparse_hyper_jax.ops.device_axes import spread_by
from sparse_hyper_jax.ops.pursue import enter_taps
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.types import ContinuousTuples


class Description(NamedTuple):
    """What is known of ``k`` connections without running anything.

    Attributes:
        positions: ``(k, r)`` int32, the cells that they read in hard mode.
        deviations: ``(k, r)`` standard deviations, in cells; 0 for taps and edges.
        values: ``(k,)``; for taps, and edges with matrices, the length of their weights.
        importance: ``(k,)``, size of the value times that of what it multiplies; 0 for what counts
            for nothing.
        settled: ``(k,)`` bool: no variance reaches one squared cell; for taps and edges,
            placed.
        duplicate: ``(k,)`` bool: an earlier one, or slot, sits on the same cell.
        order: ``(k,)`` int32, from the most important down; equal ones stay in turn, NaN is last.

    Example:
        >>> from sparse_hyper_jax import explain, ops
        >>> taps = ops.Taps(jnp.array([[3], [0]]), jnp.array([True, True]))
        >>> found = explain.describe_taps(taps, jnp.array([[0.5], [2.0]]))
        >>> found.positions[found.order, 0].tolist()
        [0, 3]
    """

    positions: jax.Array
    deviations: jax.Array
    values: jax.Array
    importance: jax.Array
    settled: jax.Array
    duplicate: jax.Array
    order: jax.Array


def describe_tuples(
    tuples: ContinuousTuples, shape: Sequence[int], *, input_sizes: Any = None
) -> Description:
    """Describe learned tuples: their cells, and what each carries if its input is of usual size.

    ``importance = |value| * input_sizes[cell]``, of the cell on which the mean settles.

    Args:
        tuples: ``k`` tuples of rank ``r``, as a source network gives them.
        shape: the ``r`` lengths of their index space.
        input_sizes: usual size of what is multiplied, for instance the root of the mean square of
            every input over a data set: an array over the last axes of the index space. None for 1.

    Returns:
        :class:`Description`.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> from sparse_hyper_jax import ContinuousTuples, explain
        >>> tuples = ContinuousTuples(
        ...     jnp.array([[0.1, 2.2], [1.0, 0.9]]), jnp.full((2, 2), 0.04), jnp.array([1.0, -2.0])
        ... )
        >>> found = explain.describe_tuples(tuples, (2, 3), input_sizes=jnp.array([1.0, 0.1, 1.0]))
        >>> found.positions.tolist(), found.importance.tolist(), found.order.tolist()
        ([[0, 2], [1, 1]], [1.0, 0.20000000298023224], [0, 1])
    """
    check_instance("tuples", tuples, ContinuousTuples)
    shape = checks.check_index_shape("shape", shape)
    means, variances, values = (
        at_least_float32(as_array(name, one))
        for name, one in zip(("means", "variances", "values"), tuples, strict=True)
    )
    checks.check_tuples(means, variances, values)
    positions = round_means(means, shape)
    sizes = jnp.ones(())
    if input_sizes is not None:
        table = at_least_float32(as_array("input_sizes", input_sizes))
        checks.require(
            table.ndim <= len(shape) and table.shape == shape[len(shape) - table.ndim :],
            f"input_sizes of shape {table.shape} for an index space of {shape}",
            "a size for every cell of its last axes",
            "pass one number per input",
        )
        inputs = positions[:, len(shape) - table.ndim :]
        sizes = jnp.abs(table[tuple(inputs[:, axis] for axis in range(table.ndim))])
    # A tuple whose mean is NaN is on no cell, though its position reads 0.
    somewhere = ~jnp.isnan(means).any(-1)
    importance = jnp.where(somewhere, jnp.abs(values) * sizes, jnp.nan)
    return Description(
        positions,
        jnp.sqrt(variances),
        values,
        importance,
        jnp.all(variances < 1, -1) & somewhere,
        somewhere & ~first_occurrence(jnp.where(somewhere[:, None], positions, -1), shape),
        _order(importance),
    )


def describe_taps(taps: Taps, weights: Any, *, input_sizes: Any = None) -> Description:
    """Describe placed taps: their cells, and what each carries if its inputs are of usual size.

    ``importance_j = |sizes * weights_j|``, the length of all weights of a tap, each times the usual
    size of its input channel.

    Args:
        taps: ``k`` slots.
        weights: ``(k, ...)``: those of every slot, of which the second axis, if there is one, is
            that of the input channels: ``(k, C, O)`` or ``(k, C)``.
        input_sizes: usual size of every channel ``(C,)``, for instance the root of the mean square.
            None for 1.

    Returns:
        :class:`Description`; an empty slot has value and importance 0 whatever its weights hold.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> from sparse_hyper_jax import explain, ops
        >>> taps = ops.Taps(jnp.array([[5], [0]]), jnp.array([True, False]))
        >>> found = explain.describe_taps(taps, jnp.ones((2, 4, 1)), input_sizes=jnp.full(4, 0.5))
        >>> found.importance.tolist(), found.settled.tolist()
        ([1.0, 0.0], [True, False])
    """
    positions, placed = enter_taps(taps)
    weights = at_least_float32(as_array("weights", weights))
    checks.require(
        weights.shape[:1] == placed.shape,
        f"weights of shape {weights.shape} for {len(placed)} slots",
        "the weights of every slot along the first axis",
        "pass those of the same layer",
    )
    # Also before they are scaled: the slope of a size is 0 for an empty slot.
    weights = jnp.where(_like(placed, weights), weights, 0)
    scaled = weights
    if input_sizes is not None:
        sizes = at_least_float32(as_array("input_sizes", input_sizes))
        checks.require(
            weights.ndim >= 2 and sizes.shape == weights.shape[1:2],
            f"input_sizes of shape {sizes.shape} for weights of shape {weights.shape}",
            "one size for every input channel, the second axis of the weights",
            "pass (C,) sizes",
        )
        scaled = weights * sizes.reshape(1, -1, *[1] * (weights.ndim - 2))
    values, importance = (_lengths(one) for one in (weights, scaled))
    same = jnp.all(positions[:, None] == positions[None], -1) & placed[:, None] & placed[None]
    return Description(
        positions,
        jnp.zeros(positions.shape),
        values,
        importance,
        placed,
        jnp.any(jnp.tril(same, -1), -1),
        _order(importance),
    )


def describe_edges(edges: graph.InEdges, values: Any, h: Any) -> Description:
    """Describe learned edges: from whom each node receives, and how much each edge carries.

    ``importance = ||h[sender] value||``, see :func:`~sparse_hyper_jax.graph.edge_importance`.

    Args:
        edges: of shape ``(n, k)``.
        values: ``(n, k)``, or matrices ``(n, k, C, O)``.
        h: ``(n, *features)``, for matrices ``(n, ..., C)``: what nodes send, of many samples; best
            without their mean.

    Returns:
        :class:`Description` of ``n k`` connections, first those into node 0, with positions
        ``(receiver, sender)``; an empty slot has sender, value and importance 0.

    Raises:
        ValueError: shapes that do not agree.

    Example:
        >>> from sparse_hyper_jax import explain, graph
        >>> edges = graph.InEdges(jnp.array([[1], [0]]), jnp.ones((2, 1), bool))
        >>> found = explain.describe_edges(edges, [[-2.0], [0.5]], [[1.0], [3.0]])
        >>> print(explain.write_description(found, axes=("receiver", "sender")))
        | receiver | sender | deviation | value | importance | |
        |---|---|---|---|---|---|
        | 0 | 1 | 0 | -2 | 6 |  |
        | 1 | 0 | 0 | 0.5 | 0.5 |  |
    """
    importance = graph.edge_importance(edges, values, h).reshape(-1)
    senders, placed = enter_in_edges(edges)
    nodes, slots = placed.shape
    values = at_least_float32(as_array("values", values))
    values = values.reshape(nodes * slots, *values.shape[2:])
    listed = placed.reshape(-1)
    values = jnp.where(_like(listed, values), values, 0)
    same = (senders[:, :, None] == senders[:, None]) & placed[:, :, None] & placed[:, None]
    receivers = jnp.broadcast_to(jnp.arange(nodes, dtype=jnp.int32)[:, None], senders.shape)
    positions = jnp.stack([spread_by(receivers, senders), senders], axis=-1).reshape(-1, 2)
    return Description(
        positions,
        jnp.zeros(positions.shape),
        values if values.ndim == 1 else _lengths(values),
        importance,
        listed,
        jnp.tril(same, -1).any(axis=-1).reshape(-1),
        _order(importance),
    )


def _order(importance: jax.Array) -> jax.Array:
    """Put the most important first."""
    return jnp.argsort(-importance, stable=True).astype(jnp.int32)


def _lengths(rows: jax.Array) -> jax.Array:
    """Give the length of every row, with slope 0 at length 0."""
    return norm(rows, tuple(range(1, rows.ndim))).reshape(len(rows))


def _like(mask: jax.Array, array: jax.Array) -> jax.Array:
    """Let a mask over the first axis fit an array."""
    return mask.reshape(mask.shape + (1,) * (array.ndim - 1))
