"""A scan whose backward pass remembers about the root of what all its steps are."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_function
from sparse_hyper_jax.recurrent.cells import as_sequence, described, outline


def checkpointed_scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    *,
    length: int | None = None,
    segments: int | None = None,
) -> tuple[Any, Any]:
    """Run ``jax.lax.scan``, computing again in the backward pass what the forward pass forgot.

    A scan of S segments of ``T // S`` steps (and one of the rest), where a segment keeps only the
    carry it began with, and a step of a segment only its own: memory for about ``S + T / S``
    carries and the inside of one step, instead of T times that inside, for about one more forward
    pass or two. Values are those of ``jax.lax.scan``, gradients too up to rounding.

    For optimal schedules, a given number of checkpoints, and lengths that are not known, see
    ``equinox.internal.scan(kind="checkpointed")``.

    Args:
        f: ``(carry, x) -> (carry, y)``.
        init: carry before the first step, any pytree.
        xs: pytree of ``(T, ...)``, or None with a ``length``.
        length: T, where there are no xs.
        segments: S, from 1 to T; by default the root of T.

    Returns:
        the last carry, and the y of all steps, stacked: as ``jax.lax.scan``.

    Raises:
        ValueError: f is no function, or makes no pair, or another kind of carry than it was given;
            no steps or several lengths, segments outside.

    Reference: Chen, Xu, Zhang, Guestrin 2016, "Training deep nets with sublinear memory cost",
    arXiv 1604.06174; Griewank, Walther 2000, "Algorithm 799: revolve", for optimal schedules.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> total, sums = recurrent.checkpointed_scan(
        ...     lambda carry, x: (carry + x, carry + x), 0.0, jnp.arange(5.0)
        ... )
        >>> float(total), sums.tolist()
        (10.0, [0.0, 1.0, 3.0, 6.0, 10.0])
    """
    check_function("f", f, "a function (carry, x) -> (carry, y)")
    xs, total = _steps(xs, length)
    root = math.isqrt(total) if segments is None else segments
    count = checks.check_count("segments", root, least=1, most=total)
    _check_step(f, init, jax.tree.map(lambda leaf: leaf[0], xs))
    # Inside of a scan nothing could be merged with the forward pass: no barriers are needed.
    step = jax.checkpoint(f, prevent_cse=False)
    each = total // count

    def segment(carry: Any, part: Any) -> tuple[Any, Any]:
        return jax.lax.scan(step, carry, part, length=each)

    head = jax.tree.map(lambda leaf: leaf[: count * each].reshape(count, each, *leaf.shape[1:]), xs)
    segment = jax.checkpoint(segment, prevent_cse=False)
    carry, ys = jax.lax.scan(segment, init, head, length=count)
    ys = jax.tree.map(lambda leaf: leaf.reshape(count * each, *leaf.shape[2:]), ys)
    rest = total - count * each
    if not rest:
        return carry, ys
    tail = jax.tree.map(lambda leaf: leaf[count * each :], xs)
    carry, last = jax.lax.scan(step, carry, tail, length=rest)
    return carry, jax.tree.map(lambda *both: jnp.concatenate(both), ys, last)


def _check_step(f: Callable[[Any, Any], Any], init: Any, x: Any) -> None:
    """Raise unless a step makes a carry like the one it is given, and something beside it."""
    leaves = jax.tree.leaves(init)
    for leaf in leaves:
        if not isinstance(leaf, jax.Array):  # keys are arrays, but no numbers
            as_array("an array of init", leaf, "numbers")
    given, made = jax.eval_shape(lambda: init), outline("a step", f, init, x)
    checks.require(
        isinstance(made, tuple | list) and len(made) == 2,
        f"a step that returns {described(made)}",
        "a pair (carry, y)",
        "return (carry, None) where there is no y",
    )
    pairs = zip(*map(jax.tree.leaves, (given, made[0])), strict=False)
    # Python's numbers take the dtype of what they become.
    alike = jax.tree.structure(given) == jax.tree.structure(made[0]) and all(
        one.shape == two.shape and (one.dtype == two.dtype or one.weak_type) for one, two in pairs
    )
    checks.require(
        alike,
        f"a step that makes the carry {described(made[0])} of {described(given)}",
        "the same structure, shapes and dtypes",
        "return (carry, y) with such a carry, and cast it to the dtypes of init",
    )


def _steps(xs: Any, length: int | None) -> tuple[Any, int]:
    if not jax.tree.leaves(xs):
        checks.require(length is not None, "no xs and no length", "one of the two", "pass length=T")
        return xs, checks.check_count("length", length, least=1)
    xs, total = as_sequence(xs)
    checks.require(
        length is None or checks.check_count("length", length) == total,
        f"length={length} with xs of {total} steps",
        "the same number",
        "leave length out",
    )
    return xs, total
