"""Where the next edges of every node go, and which of those that are there does least."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, as_int32, check_function
from sparse_hyper_jax.graph.entrance import enter_nodes
from sparse_hyper_jax.graph.gains import EdgeGains
from sparse_hyper_jax.graph.in_edges import InEdges, enter_in_edges
from sparse_hyper_jax.norms import in_units, norm, unit_of
from sparse_hyper_jax.ops.pursue import Taps, drop_taps, pursue
from sparse_hyper_jax.precision import at_least_float32, wide_dtype


def place_edges(
    edges: InEdges,
    gains: EdgeGains,
    count: int = 1,
    *,
    min_z: float | jax.Array | None = None,
) -> InEdges:
    """Fill empty slots of every node by the edges of its largest gains.

    :func:`~sparse_hyper_jax.ops.pursue`, in every node by itself. Place one per probe, train, and
    probe again: what a placed edge explains, its rivals no longer gain. No edge that is there is
    placed again; gains made by hand that name a sender twice in one row may place it twice.

    Args:
        edges: of shape ``(n, k)``.
        gains: those of absent edges, from :func:`edge_gains`.
        count: largest number of edges to place for each node, static.
        min_z: by how many times a gain has to exceed the root mean square of all gains of its node;
            None takes any. May be traced. No calibrated test.

    Returns:
        the edges, with up to ``count`` more of them placed for every node.

    Raises:
        ValueError: shapes that do not agree, or a negative count.

    Example:
        >>> from sparse_hyper_jax import graph
        >>> gains = graph.edge_gains(jnp.eye(3), -jnp.eye(3)[jnp.array([2, 0, 1])])
        >>> edges = graph.place_edges(graph.empty_edges(3, 2), gains)
        >>> edges.senders.tolist(), edges.placed.tolist()
        ([[2, 0], [0, 0], [1, 0]], [[True, False], [True, False], [True, False]])
    """
    edges = enter_in_edges(edges)
    found = _enter_gains(gains, len(edges.placed))
    count = checks.check_count("count", count)
    threshold = jnp.full(len(edges.placed), -jnp.inf, found.gains.dtype)
    if min_z is not None:
        checks.check_number("min_z", min_z)
        threshold = jnp.asarray(min_z, found.noise.dtype) * found.noise

    def node(edges: InEdges, gains: jax.Array, names: jax.Array, threshold: jax.Array) -> InEdges:
        # Cells are the candidates; what is placed lies outside of them, and keeps its slot.
        taps = Taps(jnp.full((len(edges.placed), 1), -1, jnp.int32), edges.placed)
        there = ((names[:, None] == edges.senders[None]) & edges.placed[None]).any(axis=1)
        after = pursue(
            gains,
            taps,
            count,
            allowed=(names >= 0) & (names < len(found.noise)) & ~there,
            threshold=threshold,
        )
        fresh = after.placed & ~edges.placed
        chosen = names[jnp.where(fresh, after.positions[:, 0], 0)]
        return InEdges(jnp.where(fresh, chosen, edges.senders), after.placed)

    return jax.vmap(node)(edges, found.gains, found.senders, threshold)


def drop_edges(edges: InEdges, importance: Any, count: int = 1) -> InEdges:
    """Empty the slots of the least important edges of every node.

    Args:
        edges: of shape ``(n, k)``.
        importance: ``(n, k)``, such as that of :func:`edge_importance`. What is NaN or infinite
            stays.
        count: largest number of edges to drop for each node, static.

    Returns:
        the edges; of equally important ones the first slots are emptied.

    Raises:
        ValueError: shapes that do not agree, or a negative count.

    Example:
        >>> from sparse_hyper_jax import graph
        >>> senders = jnp.array([[1, 2], [2, 0], [0, 1]])
        >>> edges = graph.InEdges(senders, jnp.ones((3, 2), bool))
        >>> graph.drop_edges(edges, [[0.1, 0.7], [0.3, 0.2], [0.5, 0.6]]).placed.tolist()
        [[False, True], [True, False], [False, True]]
    """
    edges = enter_in_edges(edges)
    importance = at_least_float32(as_array("importance", importance))
    checks.check_shape("importance", importance, edges.placed.shape, "one number per slot")
    count = checks.check_count("count", count)
    taps = Taps(edges.senders[..., None], edges.placed)
    left = jax.vmap(partial(drop_taps, count=count))(taps, importance)
    return InEdges(left.positions[..., 0], left.placed)


def swap_edges(
    edges: InEdges,
    importance: Any,
    gains: Callable[[InEdges], EdgeGains],
    *,
    min_z: float | jax.Array | None = None,
) -> InEdges:
    """Let the least important edge of every node go, and place the best one in its slot.

    Pursuit only adds: an edge that noise has chosen, or that was good until others came, stays.
    The edge that goes is a candidate as all others, so a good one comes back. Compare senders
    before and after: what has stayed may keep its values.

    Args:
        edges: of shape ``(n, k)``.
        importance: see :func:`drop_edges`.
        gains: the probe, ``edges -> edge_gains(...)``: of the model with the edges that are left.
        min_z: see :func:`place_edges`. The edge that goes has to pass it too, so a slot may stay
            empty.

    Returns:
        edges, of which one per node may have changed; nodes with empty slots fill one.

    Raises:
        ValueError: shapes that do not agree, or a probe that is no function.

    Example:
        >>> from sparse_hyper_jax import graph
        >>> edges = graph.InEdges(jnp.array([[1], [2], [0]]), jnp.ones((3, 1), bool))
        >>> error = -jnp.eye(3)[jnp.array([2, 2, 0])]
        >>> probe = lambda edges: graph.edge_gains(jnp.eye(3), error)
        >>> graph.swap_edges(edges, jnp.ones((3, 1)), probe).senders.ravel().tolist()
        [2, 2, 0]
    """
    check_function("gains", gains, "a function of edges that gives their gains")
    edges = enter_in_edges(edges)
    importance = at_least_float32(as_array("importance", importance))
    checks.check_shape("importance", importance, edges.placed.shape, "one number per slot")
    full = edges.placed.all(axis=1, keepdims=True)
    left = drop_edges(edges, jnp.where(full, importance, jnp.inf))
    return place_edges(left, gains(left), min_z=min_z)


def edge_importance(edges: InEdges, values: Any, h: Any) -> jax.Array:
    """Give the size of what each edge carries: ``||h[sender] v||``, over all features.

    Args:
        edges: of shape ``(n, k)``.
        values: ``(n, k)``, or matrices ``(n, k, C, O)``.
        h: ``(n, *features)``, for matrices ``(n, ..., C)``; best without their mean, of which a
            bias could take the place.

    Returns:
        ``(n, k)``, float32 or wider; 0 for empty slots.

    Raises:
        ValueError: shapes that do not agree.

    Example:
        >>> from sparse_hyper_jax import graph
        >>> edges = graph.InEdges(jnp.array([[1], [0]]), jnp.array([[True], [False]]))
        >>> graph.edge_importance(edges, [[-2.0], [5.0]], [[1.0, 1.0], [3.0, 4.0]]).tolist()
        [[10.0], [0.0]]
    """
    h = enter_nodes("h", h)
    edges = enter_in_edges(edges, len(h))
    values = as_array("values", values)
    features = h.shape[-1] if h.ndim >= 2 else 0
    checks.require(
        values.shape[:2] == edges.placed.shape
        and (values.ndim == 2 or (values.ndim == 4 and values.shape[2] == features)),
        f"values of shape {values.shape} for edges of shape {edges.placed.shape}",
        "one number or matrix per slot",
        "reshape values",
    )
    dtype = wide_dtype(h, values)
    h, values = h.astype(dtype), values.astype(dtype)
    # What empty slots hold, and nodes that nobody reads, have no slope either, NaN or not.
    values = jnp.where(_to_rank(edges.placed, values.ndim), values, 0)
    senders = jnp.where(edges.placed, edges.senders, len(h))
    used = jnp.zeros(len(h), bool).at[senders].set(True, mode="drop")
    h = jnp.where(_to_rank(used, h.ndim), h, 0)
    if values.ndim == 2:
        sizes = norm(h.reshape(len(h), -1), (1,))[:, 0]
        return jnp.where(edges.placed, sizes[edges.senders] * jnp.abs(values), 0)
    # The squares of all samples meet in one small matrix per node.
    rows = h.reshape(len(h), math.prod(h.shape[1:-1]), features)
    # In units of the largest entries squares and products of four do not overflow, nor vanish but
    # beside larger ones.
    of_rows, of_values = (
        unit_of(jnp.max(jnp.abs(one), (-2, -1), keepdims=True, initial=0)) for one in (rows, values)
    )
    endless = jnp.isinf(values).any((-2, -1)) | jnp.isinf(rows).any((-2, -1))[edges.senders]
    rows, values = in_units(rows, of_rows), in_units(values, of_values)
    highest = jax.lax.Precision.HIGHEST
    second = jnp.einsum("nsc,nsd->ncd", rows, rows, precision=highest)[edges.senders]
    size = jnp.einsum("nkco,nkcd,nkdo->nk", values, second, values, precision=highest)
    # Zeros first: a root has no slope at 0.
    positive = edges.placed & ~(size <= 0)
    root = jnp.where(positive, jnp.sqrt(jnp.where(positive, size, 1)), 0)
    found = root * of_rows[edges.senders, 0, 0] * of_values[:, :, 0, 0]
    # In units infinity would be a large number.
    return jnp.where(edges.placed & endless & ~jnp.isnan(found), jnp.inf, found)


def _to_rank(flags: jax.Array, rank: int) -> jax.Array:
    """Give flags axes of length 1 at the end."""
    return flags.reshape(*flags.shape, *(1,) * (rank - flags.ndim))


def _enter_gains(gains: Any, nodes: int) -> EdgeGains:
    """Check gains, which may also be a plain tuple."""
    checks.require(
        isinstance(gains, tuple | list) and len(gains) == 3,
        f"gains={gains!r:.80}",
        "EdgeGains(senders, gains, noise)",
        "pass what edge_gains gives",
    )
    senders = as_int32("senders", gains[0])
    numbers = at_least_float32(as_array("gains", gains[1]))
    noise = at_least_float32(as_array("noise", gains[2]))
    checks.check_shape("gains", numbers, (nodes, None), "(n, c): the candidates of every node")
    checks.check_shape("senders", senders, numbers.shape, "one per gain")
    checks.check_shape("noise", noise, (nodes,), "one number per node")
    return EdgeGains(senders, numbers, noise)
