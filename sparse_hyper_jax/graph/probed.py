"""What a probe of edges takes, cast and checked."""

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.graph.entrance import Edges, enter_edges
from sparse_hyper_jax.precision import at_least_float32, wide_dtype

NewWeight = Literal["positive", "any", "matrix"]
NEW_WEIGHTS = get_args(NewWeight)
"""What a new edge may bring: a positive number, a number of any sign, or a matrix.

Example:
    >>> from sparse_hyper_jax import graph
    >>> h = jnp.eye(4).reshape(4, 2, 2)  # two samples of two features
    >>> for weights in graph.NEW_WEIGHTS:
    ...     gains = graph.edge_gains(h, -h[::-1], weights=weights)
    ...     print(weights, gains.senders.ravel().tolist())
    positive [3, 2, 1, 0]
    any [3, 2, 1, 0]
    matrix [2, 2, 0, 0]
"""


def enter_there(senders: Any, receivers: Any, nodes: int) -> Edges | None:
    """Check edges that are there already; both lists or none."""
    if senders is None and receivers is None:
        return None
    checks.require(
        senders is not None and receivers is not None,
        "senders without receivers, or receivers without senders",
        "both, or none of them",
        "pass both lists of the edges that are there",
    )
    return enter_edges(senders, receivers, nodes, nodes)


def enter_allowed(allowed: Any, nodes: int) -> jax.Array:
    """Return flags ``(n,)``, all true where none are given."""
    if allowed is None:
        return jnp.ones(nodes, bool)
    allowed = as_array("allowed", allowed, "flags")
    checks.check_shape("allowed", allowed, (nodes,), "one flag per node")
    return allowed


def enter_cotangent(
    cotangent: Any, output: Any, weights: NewWeight, *, nodes: int, sent: jax.ShapeDtypeStruct
) -> tuple[jax.Array, jax.Array]:
    """Give cotangents ``(n, F)``, or ``(n, s, O)`` of matrices, and what ``output`` takes off.

    Args:
        cotangent: see :func:`edge_gains`.
        output: see there.
        weights: see there.
        nodes: how many there are.
        sent: shape and dtype of what a block of them sends.

    Raises:
        ValueError: shapes that do not agree.
    """
    cotangent = as_array("cotangent", cotangent)
    features = sent.shape[1:]
    fits = cotangent.shape[1:] == features
    if weights == "matrix":
        fits = len(features) >= 1 and cotangent.shape[1:-1] == features[:-1]
        fits = fits and cotangent.ndim == len(features) + 1
    checks.require(
        cotangent.shape[:1] == (nodes,) and fits,
        f"cotangent of shape {cotangent.shape} where nodes send {(nodes, *features)}",
        "the same shape, but for the last axis if weights are matrices",
        "pass the gradient with respect to the sums",
    )
    cotangent = jax.lax.stop_gradient(cotangent.astype(wide_dtype(cotangent, sent)))
    own = jnp.zeros(len(cotangent), cotangent.dtype)
    if output is not None:
        output = jax.lax.stop_gradient(at_least_float32(as_array("output", output)))
        checks.require(
            weights != "matrix" and output.shape == cotangent.shape,
            f"output of shape {output.shape} with weights={weights!r}",
            f"the shape {cotangent.shape} of the cotangent, and weights that are numbers",
            "leave output out, or pass what aggregate gives",
        )
        product = (output.astype(cotangent.dtype) * cotangent).reshape(len(cotangent), -1)
        own = product.sum(axis=1)
    if weights == "matrix":
        samples = math.prod(features[:-1])
        return cotangent.reshape(len(cotangent), samples, cotangent.shape[-1]), own
    return cotangent.reshape(len(cotangent), -1), own


def sent_by(message: Callable[[jax.Array], jax.Array] | None) -> Callable[[jax.Array], jax.Array]:
    """Give what rows of features send, float32 or wider."""
    return (
        at_least_float32
        if message is None
        else lambda rows: at_least_float32(as_array("message(rows)", message(rows)))
    )
