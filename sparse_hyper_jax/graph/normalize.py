"""Values of edges that follow from the edges as they are now: by degrees, or by a softmax."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.graph.entrance import enter_edges, enter_num_nodes, enter_values
from sparse_hyper_jax.ops.segments import segment_softmax


class WeightedEdges(NamedTuple):
    """Edges with values, for ``aggregate(*edges, h)``.

    Attributes:
        senders: int32 ``(E,)``; -1 marks padding.
        receivers: int32 ``(E,)``; -1 marks padding.
        values: ``(E,)``, 0 for padding.

    Example:
        >>> from sparse_hyper_jax import graph
        >>> edges = graph.WeightedEdges(jnp.array([0]), jnp.array([1]), jnp.array([2.0]))
        >>> graph.aggregate(*edges, jnp.array([3.0, 5.0])).tolist()
        [0.0, 6.0]
    """

    senders: jax.Array
    receivers: jax.Array
    values: jax.Array


export.register_namedtuple_serialization(
    WeightedEdges, serialized_name="sparse_hyper_jax.WeightedEdges"
)


def gcn_normalize(
    senders: Any,
    receivers: Any,
    values: Any = None,
    *,
    num_nodes: int,
    self_loops: bool = True,
) -> WeightedEdges:
    """Divide by degrees as a graph convolution does: ``v_ij / sqrt(in_i out_j)``.

    ``in_i`` is the sum of the values of the edges that come into node i, ``out_j`` that of those
    that leave node j, both of the edges as they are, the loops of ones added to every node
    included. For edges that go both ways it is ``D^(-1/2) (A + I) D^(-1/2)``.

    Args:
        senders: integers ``(E,)``; an edge with a node outside, such as -1, is padding.
        receivers: integers ``(E,)``.
        values: positive ``(E,)``; None for ones.
        num_nodes: number ``n`` of nodes, static.
        self_loops: add an edge of value 1 from every node to itself, after the others.

    Returns:
        ``E`` edges, with loops ``E + n``. Where a degree is not positive, values are 0.

    Raises:
        ValueError: shapes that do not agree.

    Reference: Kipf and Welling 2017, arXiv 1609.02907.

    Example:
        >>> from sparse_hyper_jax import graph
        >>> edges = graph.gcn_normalize([0, 1], [1, 0], num_nodes=3)
        >>> edges.values.round(3).tolist()  # node 2 is alone with itself
        [0.5, 0.5, 0.5, 0.5, 1.0]
    """
    count = enter_num_nodes(num_nodes)
    edges = enter_edges(senders, receivers, count, count)
    values = enter_values(values, edges, jnp.ones((), jnp.float32))
    checks.check_shape("values", values, edges.kept.shape, "one number per edge")
    sending, receiving, kept = edges
    if checks.check_flag("self_loops", self_loops):
        loops = jnp.arange(count, dtype=jnp.int32)
        sending, receiving = (jnp.concatenate([part, loops]) for part in (sending, receiving))
        kept = jnp.concatenate([kept, jnp.ones(count, bool)])
        values = jnp.concatenate([values, jnp.ones(count, values.dtype)])
    into, out = (
        _inverse_root(jax.ops.segment_sum(values, nodes, count)) for nodes in (receiving, sending)
    )
    scaled = jnp.where(kept, values * into[receiving] * out[sending], 0)
    sending, receiving = (jnp.where(kept, part, -1) for part in (sending, receiving))
    return WeightedEdges(sending, receiving, scaled)


def edge_softmax(
    logits: Any,
    senders: Any,
    receivers: Any,
    *,
    num_nodes: int,
    self_loops: bool = False,
    mask: Any = None,
) -> jax.Array:
    """Take the softmax over the edges that come into each node.

    Loops are forbidden before the softmax, not zeroed after it: what is left sums to 1.

    Args:
        logits: ``(E, *features)``.
        senders: integers ``(E,)``; an edge with a node outside, such as -1, is padding.
        receivers: integers ``(E,)``.
        num_nodes: number ``n`` of nodes, static.
        self_loops: edges from a node to itself take part.
        mask: flags ``(E,)``; edges of False take no part. None keeps all.

    Returns:
        ``(E, *features)`` in the dtype of ``logits``; 0 for what takes no part. Those of a node sum
        to 1, unless it has none.

    Raises:
        ValueError: shapes that do not agree.

    Example:
        >>> from sparse_hyper_jax import graph
        >>> logits = jnp.log(jnp.array([1.0, 3.0, 7.0]))
        >>> print(graph.edge_softmax(logits, [0, 1, 2], [2, 2, 2], num_nodes=3).round(2))
        [0.25 0.75 0.  ]
    """
    count = enter_num_nodes(num_nodes)
    sending, receiving, kept = enter_edges(senders, receivers, count, count)
    if not checks.check_flag("self_loops", self_loops):
        kept &= sending != receiving
    if mask is not None:
        mask = as_array("mask", mask, "flags")
        checks.check_shape("mask", mask, kept.shape, "one flag per edge")
        kept &= mask
    logits = as_array("logits", logits)
    checks.require(
        logits.shape[:1] == kept.shape,
        f"logits of shape {logits.shape} for {len(kept)} edges",
        "(E, ...): one for every edge",
        "pass one row of logits per edge",
    )
    return segment_softmax(logits, receiving, count, mask=kept)


def _inverse_root(degrees: jax.Array) -> jax.Array:
    """Give ``1 / sqrt(degree)``, 0 where it is not positive; NaN stays NaN."""
    positive = ~(degrees < jnp.finfo(degrees.dtype).tiny)
    return jnp.where(positive, jax.lax.rsqrt(jnp.where(positive, degrees, 1)), 0)
