"""Slots for incoming edges, as many for every node."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.graph.entrance import enter_num_nodes
from sparse_hyper_jax.ops.inside import is_inside


class InEdges(NamedTuple):
    """For every node the nodes from which it receives.

    Attributes:
        senders: int32 ``(n, k)``; 0 in an empty slot.
        placed: bool ``(n, k)``; false marks an empty slot, which counts for nothing.

    Example:
        >>> from sparse_hyper_jax import graph
        >>> edges = graph.InEdges(jnp.array([[1, 2], [0, 0], [1, 0]]), jnp.array(
        ...     [[True, True], [False, False], [True, False]]))
        >>> senders, receivers = graph.edge_list(edges)
        >>> senders.tolist(), receivers.tolist()
        ([1, 2, -1, -1, 1, -1], [0, 0, -1, -1, 2, -1])
    """

    senders: jax.Array
    placed: jax.Array


export.register_namedtuple_serialization(InEdges, serialized_name="sparse_hyper_jax.InEdges")


def empty_edges(num_nodes: int, count: int) -> InEdges:
    """Make slots of which none holds an edge.

    Args:
        num_nodes: number ``n`` of nodes, static.
        count: number ``k`` of slots of each, static.

    Returns:
        edges of shape ``(n, k)``.

    Raises:
        ValueError: no node, or a negative count.

    Example:
        >>> from sparse_hyper_jax import graph
        >>> graph.empty_edges(3, 2).placed.shape
        (3, 2)
    """
    shape = enter_num_nodes(num_nodes), checks.check_count("count", count)
    return InEdges(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool))


def edge_list(edges: InEdges) -> tuple[jax.Array, jax.Array]:
    """Give edges as lists of senders and receivers, as jraph and this room's other functions do.

    Args:
        edges: of shape ``(n, k)``.

    Returns:
        senders and receivers, int32 ``(n k,)``: first the edges of node 0. Empty slots, and senders
        that are no nodes, are -1 in both lists, which marks padding.

    Raises:
        ValueError: edges that are none.

    Example:
        >>> from sparse_hyper_jax import graph
        >>> edges = graph.InEdges(jnp.array([[1], [0]]), jnp.array([[True], [False]]))
        >>> [nodes.tolist() for nodes in graph.edge_list(edges)]
        [[1, -1], [0, -1]]
    """
    edges = enter_in_edges(edges)
    nodes = jnp.arange(edges.senders.shape[0], dtype=jnp.int32)
    receivers = jnp.broadcast_to(nodes[:, None], edges.senders.shape)
    listed = (jnp.where(edges.placed, part, -1) for part in (edges.senders, receivers))
    senders, receivers = (part.reshape(-1) for part in listed)
    return senders, receivers


def enter_in_edges(edges: Any, num_nodes: int | None = None) -> InEdges:
    """Check edges, which may also be a plain tuple; empty slots get sender 0.

    A sender that is no node empties its slot.

    Args:
        edges: senders and flags.
        num_nodes: how many nodes they have to be for; None for as many as there are.

    Raises:
        ValueError: not two parts, shapes that do not agree, no integers, or no flags.
    """
    checks.require(
        isinstance(edges, tuple | list) and len(edges) == 2,
        f"edges={edges!r:.80}",
        "InEdges(senders, placed), or a plain tuple of these",
        "pass InEdges, for instance empty_edges(100, 4)",
    )
    senders = as_array("senders", edges[0], "integers")
    placed = as_array("placed", edges[1], "flags")
    checks.check_shape("senders", senders, (num_nodes, None), "(n, k): the slots of every node")
    checks.check_shape("placed", placed, senders.shape, "a flag for every sender")
    placed = placed & is_inside(senders[..., None], (senders.shape[0],))
    return InEdges(jnp.where(placed, senders, 0).astype(jnp.int32), placed)
