"""Losses on what the differentiable quicksort returns: order is learned from sorted examples."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.checks import check_choice, check_shape, require, require_given
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.sort.buckets import bucket_means, buckets_at, num_levels
from sparse_hyper_jax.sort.quicksort import Sorted

KINDS = ("plain", "means", "separate")
MARGIN = 1e-6
"""Below this the logarithm of :func:`cross_entropy` goes on as its tangent."""


def safe_log(values: jax.Array) -> jax.Array:
    """Return ``log(values)``, continued below ``MARGIN`` by its tangent there.

    Finite at zero, with slope ``1 / MARGIN`` instead of infinity: a value that ought to rise from
    zero still has a gradient, as it would not under clipping.
    """
    inside = values >= MARGIN
    # Double where: the unused branch must be finite too, or its gradient becomes NaN.
    log = jnp.log(jnp.where(inside, values, 1))
    return jnp.where(inside, log, jnp.log(MARGIN) + values / MARGIN - 1)


def cross_entropy(output: jax.Array, target: jax.Array) -> jax.Array:
    """Return the elementwise binary cross-entropy ``-t log y - (1 - t) log(1 - y)``.

    Exactly zero where output and target are both 0 or both 1; finite, with a finite gradient for
    either argument, everywhere.

    Args:
        output: ``(...)`` values in [0, 1], up to rounding.
        target: ``(...)`` values in [0, 1].

    Returns:
        ``(...)``, at least float32.
    """
    dtype = wide_dtype(output, target)
    output, target = jnp.asarray(output, dtype), jnp.asarray(target, dtype)
    return -target * safe_log(output) - (1 - target) * safe_log(1 - output)


def squared_error(output: jax.Array, target: jax.Array) -> jax.Array:
    """Return the elementwise ``(y - t)^2``, for payloads that are not confined to [0, 1]."""
    dtype = wide_dtype(output, target)
    return jnp.square(jnp.asarray(output, dtype) - jnp.asarray(target, dtype))


def sort_loss(
    result: Sorted,
    target: Any,
    *,
    kind: str = "means",
    distance: Callable[[jax.Array, jax.Array], jax.Array] = cross_entropy,
) -> jax.Array:
    """Compare what a sort returned with the payload in its right order.

    With ``y_d`` the stages, ``t_d`` the targets pulled back to them, ``L`` the number of levels and
    every term a mean over positions and features:

    - ``plain``: ``distance(y_L, t)``, the end only;
    - ``separate``: ``sum_{d = 0 .. L} distance(y_d, t_d)``;
    - ``means``: ``sum_{d = 0 .. L} sum_b size_b / n * distance(mean_b y_d, mean_b t_d)`` over the
      buckets ``b`` of level ``d``. At ``d = L`` buckets are single positions: the plain loss.

    ``means`` asks of level ``d`` only what it can do, to bring every element into the right bucket.
    ``separate`` also compares places within a bucket, which later levels decide: it learns fast,
    but may settle in an order that is right in part.

    ``y_0`` is the input and ``t_L`` the target itself; the gradient also flows through the
    pulled-back targets. At ``d = 0`` there is one bucket, whose mean no permutation changes.

    Args:
        result: what :func:`~sparse_hyper_jax.sort.quicksort` returned for one instance, with
            its ``target`` unless ``kind`` is ``"plain"``.
        target: pytree like the payload, leaves ``(n, ...)``: the payload in its right order.
        kind: ``"plain"``, ``"means"`` or ``"separate"``.
        distance: elementwise ``(output, target) -> loss``.

    Returns:
        Scalar, at least float32: the sum over levels of the mean over leaves.

    Raises:
        ValueError: unknown kind, targets missing, or the target's tree or shapes differ from the
            payload's.

    Reference: Bloem 2018, arXiv 1810.09184.
    """
    check_choice("kind", kind, KINDS)
    _check_target(result.payload, target)
    if kind == "plain":
        return _distance(distance, result.payload, target)
    targets = require_given(
        result.targets,
        f"kind={kind!r} on a sort without targets",
        "targets at every stage",
        "pass target=... to quicksort, or use kind='plain'",
    )
    check_shape("result.keys", result.keys, (None,), "(n,): one instance; vmap sort_loss too")
    n = len(result.keys)
    levels = num_levels(n)
    total = jnp.zeros(())
    for level in range(levels + 1):
        pair = result.stages[level], target if level == levels else targets[level]
        if kind == "means":
            buckets = buckets_at(n, level)
            means = jax.tree.map(partial(bucket_means, buckets=buckets), pair)
            total = total + _distance(distance, *means, shares=buckets.sizes / n)
        else:
            total = total + _distance(distance, *pair)
    return total


def _distance(
    distance: Callable[[jax.Array, jax.Array], jax.Array],
    output: Any,
    target: Any,
    shares: np.ndarray | None = None,
) -> jax.Array:
    """Return the distance averaged over features, rows (by ``shares``) and leaves."""

    def one(leaf: jax.Array, wanted: jax.Array) -> jax.Array:
        rows = distance(leaf, wanted).reshape(len(leaf), -1).mean(axis=1)
        return rows.mean() if shares is None else (rows * jnp.asarray(shares, rows.dtype)).sum()

    leaves: list[jax.Array] = jax.tree.leaves(jax.tree.map(one, output, target))
    return sum(leaves[1:], leaves[0]) / len(leaves)


def _check_target(payload: Any, target: Any) -> None:
    """Raise unless ``target`` has the tree and the shapes of ``payload``."""
    trees = jax.tree.structure(target), jax.tree.structure(payload)
    require(
        trees[0] == trees[1],
        f"a target of tree {trees[0]}",
        f"the payload's tree {trees[1]}",
        "build the target as the payload in its right order",
    )
    for wanted, leaf in zip(jax.tree.leaves(target), jax.tree.leaves(payload), strict=True):
        check_shape("target leaf", wanted, jnp.shape(leaf), "the shape of its payload leaf")
