"""What the functions of this room take, cast and checked: once, where it comes in."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.ops.inside import clip_inside
from sparse_hyper_jax.precision import wide_dtype


class Edges(NamedTuple):
    """Edges whose nodes are safe to read with."""

    senders: jax.Array
    """int32 ``(E,)``, inside."""

    receivers: jax.Array
    """int32 ``(E,)``, inside."""

    kept: jax.Array
    """bool ``(E,)``, false for padding: a sender or a receiver that was outside."""


def enter_nodes(name: str, h: Any) -> jax.Array:
    """Return features ``(n, *features)`` of at least one node.

    Raises:
        ValueError: no axis of nodes, or an empty one.
    """
    h = as_array(name, h)
    checks.require(
        h.ndim >= 1 and h.shape[0] >= 1,
        f"{name} of shape {h.shape}",
        "(n, *features) with at least one node",
        f"give {name} a first axis of nodes",
    )
    return h


def enter_edges(senders: Any, receivers: Any, num_senders: int, num_nodes: int) -> Edges:
    """Check lists of nodes, and mark the padding among them.

    Raises:
        ValueError: no integers, or lists of two lengths.
    """
    lists = [
        as_array(name, nodes, "integers")
        for name, nodes in (("senders", senders), ("receivers", receivers))
    ]
    shape = (None,) if lists[0].ndim != 1 else lists[0].shape
    checks.check_shape("senders", lists[0], (None,), "one node per edge")
    checks.check_shape("receivers", lists[1], shape, "one node per edge, as senders")
    (sending, one), (receiving, other) = (
        clip_inside(nodes[:, None], (count,))
        for nodes, count in zip(lists, (num_senders, num_nodes), strict=True)
    )
    return Edges(sending[:, 0], receiving[:, 0], one & other)


def enter_num_nodes(num_nodes: Any) -> int:
    """Return a number of nodes that int32 can count.

    Raises:
        ValueError: no count, none, or too many.
    """
    return checks.check_count("num_nodes", num_nodes, least=1, most=checks.INT32_CELLS - 1)


def enter_values(values: Any, edges: Edges, like: jax.Array) -> jax.Array:
    """Return one value for every edge, 0 for padding; by default ones.

    Args:
        values: ``(E, *features)`` or None.
        edges: those of ``enter_edges``.
        like: array whose dtype counts too.

    Raises:
        ValueError: another length.
    """
    if values is None:
        return edges.kept.astype(wide_dtype(like))
    values = as_array("values", values)
    checks.require(
        values.ndim >= 1 and values.shape[0] == edges.kept.shape[0],
        f"values of shape {values.shape} for {edges.kept.shape[0]} edges",
        "a first axis with one entry per edge",
        "reshape values",
    )
    kept = edges.kept.reshape(-1, *(1,) * (values.ndim - 1))
    return jnp.where(kept, values.astype(wide_dtype(values, like)), 0)
