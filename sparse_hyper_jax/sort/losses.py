"""Losses on what the differentiable quicksort returns: order is learned from sorted examples."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.checks import check_choice, check_shape, require, require_given
from sparse_hyper_jax.entrance import as_array, check_function, check_instance, check_same_shape
from sparse_hyper_jax.precision import at_least_float32, wide_dtype
from sparse_hyper_jax.sort.buckets import bucket_means, buckets_at, num_levels
from sparse_hyper_jax.sort.entrance import enter_tree
from sparse_hyper_jax.sort.quicksort import Sorted

LossKind = Literal["plain", "means", "separate"]
KINDS = get_args(LossKind)
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

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> from sparse_hyper_jax.sort import cross_entropy
        >>> print(np.asarray(cross_entropy(jnp.array([0.5, 1.0]), jnp.array([1.0, 1.0]))).round(3))
        [0.693 0.   ]
    """
    output, target = _enter(output, target)
    return -target * safe_log(output) - (1 - target) * safe_log(1 - output)


def squared_error(output: jax.Array, target: jax.Array) -> jax.Array:
    """Return the elementwise ``(y - t)^2``, for payloads that are not confined to [0, 1].

    Args:
        output: ``(...)`` numbers.
        target: ``(...)`` numbers.

    Returns:
        ``(...)``, at least float32.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> from sparse_hyper_jax.sort import squared_error
        >>> print(squared_error(jnp.array([0.5, 3.0]), jnp.array([1.0, 1.0])))
        [0.25 4.  ]
    """
    output, target = _enter(output, target)
    return jnp.square(output - target)


def _enter(output: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return both in the dtype in which to compare them, or raise if their shapes differ."""
    output, target = as_array("output", output), as_array("target", target)
    check_same_shape(output=output, target=target)
    dtype = wide_dtype(output, target)
    return output.astype(dtype), target.astype(dtype)


def sort_loss(
    result: Sorted,
    target: Any,
    *,
    kind: LossKind = "means",
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
            A list of numbers is an array.
        kind: ``"plain"``, ``"means"`` or ``"separate"``.
        distance: elementwise ``(output, target) -> loss``.

    Returns:
        Scalar, at least float32: the sum over levels of the mean over leaves.

    Raises:
        ValueError: unknown kind, targets missing, the target's tree or shapes differ from the
            payload's, or the distance is not elementwise.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from sparse_hyper_jax.sort import quicksort, sort_loss
        >>> right, wrong = jnp.array([0.0, 1, 2, 3]), jnp.array([3.0, 2, 1, 0])
        >>> for keys in (right, wrong):
        ...     done = quicksort(jax.random.key(0), keys, jnp.eye(4), target=jnp.eye(4))
        ...     print(f"{sort_loss(done, jnp.eye(4)):.1f}")
        0.9
        9.6
    """
    check_choice("kind", kind, KINDS)
    check_instance("result", result, Sorted)
    check_function("distance", distance, "an elementwise loss, such as cross_entropy")
    target = enter_tree("target", target)
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
    stages = tuple(result.stages), (*targets[:-1], target)
    levels = num_levels(n)
    require(
        all(len(trees) == levels + 1 for trees in stages),
        f"{len(stages[0])} stages and {len(targets)} targets for {n} keys",
        f"{levels + 1} of both",
        "pass what quicksort returned",
    )
    losses = []
    for level, pair in enumerate(zip(*stages, strict=True)):
        if kind == "means":
            buckets = buckets_at(n, level)
            means = jax.tree.map(partial(bucket_means, buckets=buckets), pair)
            losses.append(_distance(distance, *means, shares=buckets.sizes / n))
        else:
            losses.append(_distance(distance, *pair))
    return _total(losses)


def _distance(
    distance: Callable[[jax.Array, jax.Array], jax.Array],
    output: Any,
    target: Any,
    shares: np.ndarray | None = None,
) -> jax.Array:
    """Return the distance averaged over features, rows (by ``shares``) and leaves."""

    def one(leaf: jax.Array, wanted: jax.Array) -> jax.Array:
        apart = at_least_float32(as_array("distance(output, target)", distance(leaf, wanted)))
        check_same_shape(output=leaf, distance=apart)
        rows = apart.reshape(len(leaf), -1).mean(axis=1)
        return rows.mean() if shares is None else (rows * jnp.asarray(shares, rows.dtype)).sum()

    leaves: list[jax.Array] = jax.tree.leaves(jax.tree.map(one, output, target))
    return _total(leaves) / len(leaves)


def _total(losses: list[jax.Array]) -> jax.Array:
    """Add up scalars, as wide as the widest."""
    return jnp.stack([loss.astype(wide_dtype(*losses)) for loss in losses]).sum()


def _check_target(payload: Any, target: Any) -> None:
    """Raise unless ``target`` has the tree and the shapes of ``payload``."""
    trees = jax.tree.structure(target), jax.tree.structure(payload)
    require(
        trees[0] == trees[1],
        f"a target of tree {trees[0]}",
        f"the payload's tree {trees[1]}",
        "build the target as the payload in its right order",
    )
    leaves = jax.tree.leaves(payload)
    require(
        len(leaves) > 0 and all(jnp.size(leaf) for leaf in leaves),
        f"a payload of shapes {[jnp.shape(leaf) for leaf in leaves]}",
        "something to compare",
        "leave the loss out",
    )
    for wanted, leaf in zip(jax.tree.leaves(target), leaves, strict=True):
        check_shape("target leaf", wanted, jnp.shape(leaf), "the shape of its payload leaf")
