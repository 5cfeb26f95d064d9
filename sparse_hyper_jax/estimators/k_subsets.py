"""Subsets of exactly k classes: their law, its marginals, and samples, without enumerating them.

``p(S) = exp(sum_{i in S} phi_i - Z)`` over all ``S`` of ``k`` out of ``n`` classes: independent
choices, given that ``k`` of them are made. ``Z`` is the logarithm of an elementary symmetric
polynomial, which a table of ``n (k + 1)`` sums gives::

    A[i, j] = logaddexp(A[i - 1, j], A[i - 1, j - 1] + phi_i)      i classes, of which j are chosen

Forwards it gives ``Z``, whose gradient are the marginals; backwards, exact samples. (Draws one
after the other without replacement have another law:
:func:`~sparse_hyper_jax.estimators.sample_without_replacement`.)
"""

from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_random_key
from sparse_hyper_jax.precision import at_least_float32

LEAST = -1e30
"""What stands for the logarithm of 0: minus infinity has no slope."""


def subset_log_prob(mask: jax.Array, logits: jax.Array, k: int) -> jax.Array:
    """Give the log probability of a subset of k classes.

    Args:
        mask: ``(n,)``, 1 where a class is chosen and 0 elsewhere, k times 1.
        logits: ``(n,)``; minus infinity bans a class, and ``k`` have to be left, else NaN.
        k: number of classes in the subset, from 1 to n.

    Returns:
        scalar in float32 or wider; minus infinity if a banned class is chosen.

    Raises:
        ValueError: shapes that differ, or k out of range.

    Reference: Ahmed, Zeng, Niepert and Van den Broeck 2023, "SIMPLE", arXiv 2210.01941.

    Example:
        >>> from sparse_hyper_jax.estimators import subset_log_prob
        >>> log_p = subset_log_prob(jnp.array([1, 1, 0]), jnp.zeros(3), 2)
        >>> print(jnp.exp(log_p).round(3))  # one of three
        0.333
    """
    logits, k, shift = _enter(logits, k)
    mask = as_array("mask", mask).astype(logits.dtype)
    checks.check_shape("mask", mask, logits.shape, "the shape of logits")
    banned = jnp.isneginf(logits)
    # The shift counts where a mask is not of k: 0 else, but its slope in the mask is not.
    score = jnp.sum(mask * jnp.where(banned, 0, logits)) + shift * (jnp.sum(mask) - k)
    total = _log_sum(logits, k)
    log_p = jnp.where(jnp.any(banned & (mask != 0)), -jnp.inf, score - total)
    return jnp.where(_is_law(total), log_p, jnp.nan)


def subset_marginals(logits: jax.Array, k: int) -> jax.Array:
    """Give the chance of every class to be among the k that are chosen: they sum to k.

    ``mu = dZ/dphi``, differentiable. A relaxation of the k largest that has a law behind it: with
    ``logits / temperature`` it tends to the mask of the k largest.

    Args:
        logits: ``(n,)``; minus infinity bans a class, and ``k`` have to be left, else NaN.
        k: number of classes in the subset, from 1 to n.

    Returns:
        ``(n,)`` in float32 or wider.

    Raises:
        ValueError: logits of another rank, or k out of range.

    Reference: Ahmed, Zeng, Niepert and Van den Broeck 2023, "SIMPLE", arXiv 2210.01941.

    Example:
        >>> from sparse_hyper_jax.estimators import subset_marginals
        >>> print(np.asarray(subset_marginals(jnp.array([2.0, 1.0, 0.0, 0.0]), 2)).round(3))
        [0.844 0.618 0.269 0.269]
    """
    return _marginals(*_enter(logits, k)[:2])


def sample_subset(key: jax.Array, logits: jax.Array, k: int) -> jax.Array:
    """Draw a subset of k classes, with the gradient of the marginals.

    The mask is an exact sample; backwards it counts as ``subset_marginals(logits, k)``, which is
    biased as a straight-through estimator is, and less so than Gumbel noise.

    Args:
        key: a typed key.
        logits: ``(n,)``; minus infinity bans a class, and ``k`` have to be left, else NaN.
        k: number of classes in the subset, from 1 to n.

    Returns:
        ``(n,)`` in float32 or wider: 1 at k classes, else 0.

    Raises:
        ValueError: no key, logits of another rank, or k out of range.

    Reference: Ahmed, Zeng, Niepert and Van den Broeck 2023, "SIMPLE", arXiv 2210.01941.

    Example:
        >>> from sparse_hyper_jax.estimators import sample_subset
        >>> logits = jnp.array([0.0, 8.0, 8.0, 0.0, -jnp.inf])
        >>> mask = sample_subset(jax.random.key(0), logits, 3)
        >>> float(jnp.sum(mask)), float(mask[4])
        (3.0, 0.0)
    """
    check_random_key(key)
    logits, k, _ = _enter(logits, k)
    marginals = _marginals(logits, k)
    fixed = jax.lax.stop_gradient(_finite(logits))
    _, table = _tables(fixed, k)  # (n, k + 1), before each class

    def choose(left: jax.Array, given: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        before, logit, noise = given
        # What j classes are chosen with this one, against without it.
        with_it = jnp.where(left > 0, before[jnp.maximum(left - 1, 0)] + logit, LEAST)
        taken = with_it - before[left] + noise > 0
        taken = taken & (left > 0)
        return left - taken.astype(left.dtype), taken

    noise = jax.random.logistic(key, fixed.shape, fixed.dtype)
    start = jnp.sum(jnp.zeros_like(fixed, jnp.int32)) + jnp.int32(k)
    _, mask = jax.lax.scan(choose, start, (table, fixed, noise), reverse=True)
    hard = mask.astype(marginals.dtype)
    # Exactly the mask, and NaN where there is no law.
    return hard + (marginals - jax.lax.stop_gradient(marginals))


def _log_sum(logits: jax.Array, k: int) -> jax.Array:
    """Give the logarithm of the sum over all subsets of ``exp(sum of their logits)``."""
    return _tables(_finite(logits), k)[0]


def _is_law(total: jax.Array) -> jax.Array:
    """Tell whether there is a subset at all."""
    return total > LEAST / 2


def _marginals(logits: jax.Array, k: int) -> jax.Array:
    total, marginals = jax.value_and_grad(_log_sum)(logits, k)
    return jnp.where(_is_law(total), marginals, jnp.nan)


def _tables(logits: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Give ``A[n, k]``, and the rows ``A[i]`` before each class ``(n, k + 1)``."""

    def add(row: jax.Array, logit: jax.Array) -> tuple[jax.Array, jax.Array]:
        shifted = jnp.concatenate([jnp.full_like(row[:1], LEAST), row[:-1] + logit])
        return jnp.maximum(jnp.logaddexp(row, shifted), LEAST), row

    # Made from the data and not from nothing, so that inside shard_map it varies as they do.
    start = jnp.where(jnp.arange(k + 1) == 0, 0.0, LEAST).astype(logits.dtype)
    last, rows = jax.lax.scan(add, start + 0 * logits[0], logits)
    return last[k], rows


def _finite(logits: jax.Array) -> jax.Array:
    return jnp.where(jnp.isneginf(logits), LEAST, logits)


def _enter(logits: Any, k: Any) -> tuple[jax.Array, int, jax.Array]:
    """Return logits relative to the largest of them, which is the same law, the count, and it."""
    logits = as_array("logits", logits)
    checks.check_shape("logits", logits, (None,), "(n,): one number per class")
    logits, k = at_least_float32(logits), checks.check_count("k", k, least=1, most=len(logits))
    # Sums of k of them would be lost beside LEAST, or in rounding, where all are far from 0.
    # A constant: the law does not depend on it, and the slope of a maximum may be 0 / 0 where a
    # program computes the logits twice and rounds them differently.
    largest = jax.lax.stop_gradient(jnp.max(logits))
    largest = jnp.where(jnp.isfinite(largest), largest, 0)
    return logits - largest, k, largest
