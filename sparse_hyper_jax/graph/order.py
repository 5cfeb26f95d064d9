"""An order of nodes in which neighbours are alike, so that a position among them has a slope."""

from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.graph.aggregate import aggregate
from sparse_hyper_jax.graph.entrance import enter_edges, enter_num_nodes
from sparse_hyper_jax.graph.normalize import gcn_normalize
from sparse_hyper_jax.placement import gathered
from sparse_hyper_jax.precision import at_least_float32


def order_nodes(senders: Any, receivers: Any, *, num_nodes: int, steps: int = 1000) -> jax.Array:
    """Order the nodes of a graph such that neighbours come close to each other.

    By the second eigenvector of ``D^(-1/2) A D^(-1/2)``, over the root of degrees (Fiedler), which
    is found by the power method; all edges count both ways. Chains of thousands of nodes need
    millions of steps: there, order by features.

    Args:
        senders: integers ``(E,)``; an edge with a node outside, such as -1, is padding.
        receivers: integers ``(E,)``.
        num_nodes: number ``n`` of nodes, static.
        steps: of the power method, static.

    Returns:
        int32 ``(n,)``: the nodes in their order. Its direction means nothing, nor does the place of
        nodes without edges.

    Raises:
        ValueError: lists that do not fit, or no steps.

    Reference: Fiedler 1975; Barnard, Pothen and Simon 1995, spectral ordering.

    Example:
        >>> from sparse_hyper_jax import graph
        >>> order = graph.order_nodes([3, 1, 4, 0], [1, 4, 0, 2], num_nodes=5).tolist()
        >>> order in ([3, 1, 4, 0, 2], [2, 0, 4, 1, 3])
        True
    """
    count = enter_num_nodes(num_nodes)
    steps = checks.check_count("steps", steps, least=1)
    edges = enter_edges(senders, receivers, count, count)
    one, other = (jnp.where(edges.kept, nodes, -1) for nodes in (edges.senders, edges.receivers))
    both = jnp.concatenate([one, other]), jnp.concatenate([other, one])
    weighted = gcn_normalize(*both, num_nodes=count, self_loops=False)
    degrees = aggregate(*both, None, jnp.ones(count, jnp.float32))
    first = jnp.sqrt(degrees)
    first = first / jnp.maximum(jnp.linalg.norm(first), jnp.finfo(first.dtype).tiny)

    def step(vector: jax.Array, _: None) -> tuple[jax.Array, None]:
        # Half of the identity, so that no eigenvalue is below 0.
        vector = vector + aggregate(*weighted, vector)
        vector = vector - first * jnp.sum(first * vector)
        return vector / jnp.maximum(jnp.linalg.norm(vector), jnp.finfo(vector.dtype).tiny), None

    # Any start that is no eigenvector; the same for the same graph.
    start = jnp.sin(jnp.arange(1, count + 1, dtype=jnp.float32) ** 2)
    vector, _ = jax.lax.scan(step, start, None, length=steps)
    return jnp.argsort(vector / jnp.maximum(jnp.sqrt(degrees), 1)).astype(jnp.int32)


def order_by_features(features: Any) -> jax.Array:
    """Order nodes along the first principal component of their features.

    Args:
        features: ``(n, F)``.

    Returns:
        int32 ``(n,)``: the nodes in their order. The largest entry of the component is positive.

    Raises:
        ValueError: another shape, or no features.

    Example:
        >>> from sparse_hyper_jax import graph
        >>> graph.order_by_features([[3.0, 6.1], [1.0, 2.0], [2.0, 3.9]]).tolist()
        [1, 2, 0]
    """
    features = gathered(at_least_float32(as_array("features", features)))
    checks.require(
        features.ndim == 2 and min(features.shape) >= 1,
        f"features of shape {features.shape}",
        "(n, F) with at least one node and one feature",
        "reshape features",
    )
    centred = features - features.mean(axis=0, keepdims=True)
    _, _, components = jnp.linalg.svd(centred, full_matrices=False)
    first = components[0]
    sign = jnp.sign(first[jnp.argmax(jnp.abs(first))])
    return jnp.argsort(sign * (centred @ first)).astype(jnp.int32)
