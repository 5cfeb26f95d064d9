"""Gradients from distinct samples, whose order does not matter."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.estimators.beam import check_distinct, sample_without_replacement
from sparse_hyper_jax.estimators.estimator import (
    Estimate,
    Estimator,
    Objective,
    check_field,
    evaluate,
    sum_of_scores,
)

MOST_SAMPLES = 12
"""The weights go through all subsets of the samples: ``2 ** 12`` of them."""


@dataclass(frozen=True)
class WithoutReplacement(Estimator):
    """The unordered set estimator with its built-in baseline, from ``n`` distinct samples ``S``.

    ::

        g     = sum_s p(s) R(s) (f(s) - sum_t p(t) R(s, t) f(t)) grad log p(s)
        value = sum_s p(s) R(s) f(s)
        R(s) = P(S - s | s) / P(S),   R(s, t) = P(S - s - t | s, t) / P(S - s | s),   R(s, s) = 1

    where ``P(A | B)`` is the chance that the draws after ``B`` make up the set ``A``. Unbiased, up
    to float32: with several variables, errors of 1e-7 in the probability of all other choices grow
    in proportion as it vanishes. It wastes no evaluation on a choice that was drawn before, and is
    exact once ``S`` holds all choices.

    Args:
        num_samples: ``n``, from 2 to 12, at most the number of joint choices; the work beside the
            evaluations grows as ``2 ** n``. :class:`RLOO` takes any number.

    Raises:
        ValueError: another number.

    Reference: Kool, van Hoof and Welling 2020, "Estimating Gradients for Discrete Random Variables
    by Sampling without Replacement", arXiv 2002.06043.

    Example:
        >>> from sparse_hyper_jax.estimators import Enumeration, WithoutReplacement
        >>> logits, f = jnp.array([8.0, 0.0, -1.0, -2.0]), lambda z: (z - 1.0) ** 2
        >>> exact = Enumeration().estimate(jax.random.key(0), logits, f).gradient
        >>> estimate = WithoutReplacement(num_samples=4).estimate(jax.random.key(1), logits, f)
        >>> close = bool(jnp.allclose(estimate.gradient, exact, atol=1e-6))
        >>> sorted(estimate.samples.tolist()), close  # all there are: nothing is left to chance
        ([0, 1, 2, 3], True)
    """

    num_samples: int = 4

    def __post_init__(self):
        check_field(self, "num_samples", least=2, most=MOST_SAMPLES)

    def evaluations(self, shape: Sequence[int]) -> int:
        """Count the evaluations of ``f``."""
        check_distinct(self.num_samples, prod(shape[:-1]), shape[-1])
        return self.num_samples

    def estimate_rows(self, key: jax.Array, logits: jax.Array, f: Objective) -> Estimate:
        """Estimate for rows ``(K, C)``."""
        samples, log_p = sample_without_replacement(key, logits, self.num_samples)
        alive = jnp.isfinite(log_p)
        # What is no sample is not evaluated: f may be infinite there.
        samples = jnp.where(alive[:, None], samples, samples[:1])
        values = evaluate(f, samples)
        first, second = leave_out_ratios(log_p, _log_rest(logits, samples, log_p))
        log_p, first, second = (one.astype(values.dtype) for one in (log_p, first, second))
        weights = jnp.where(alive, jnp.exp(log_p + first), 0)
        # The shares of a baseline sum to one. Differences to one value: a constant in f cancels.
        relative = jnp.where(alive, values - values[0], 0)
        both = alive[:, None] & alive[None]
        shares = jnp.where(both, jnp.exp(log_p[None] + second), 0)
        baselines = jnp.matmul(shares, relative, precision=jax.lax.Precision.HIGHEST)
        gradient = sum_of_scores(weights * (relative - baselines), samples, logits)
        return Estimate(jnp.sum(weights * jnp.where(alive, values, 0)), gradient, samples)


def _log_rest(logits: jax.Array, samples: jax.Array, log_p: jax.Array) -> jax.Array:
    """Give the logarithm of the probability of all choices that are no samples."""
    if len(logits) == 1:
        # Summed over the other classes: the difference to 1 would cancel for peaked logits.
        inside = jnp.any(samples == jnp.arange(logits.shape[1])[None], axis=0)
        return jax.nn.logsumexp(jnp.where(inside, -jnp.inf, jax.nn.log_softmax(logits)[0]))
    known = jnp.minimum(jax.nn.logsumexp(log_p), 0)
    return jnp.log(jnp.maximum(-jnp.expm1(known), 0))


@partial(jax.jit, inline=True)  # outside of jit one program, not many
def leave_out_ratios(log_p: jax.Array, log_rest: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Give the logarithms of ``R(s)`` and ``R(s, t)`` for a set of distinct samples.

    ``B(U) = sum_{s not in U} p(s) / (1 - p(U)) B(U + s)`` is the chance that the draws after ``U``
    are the rest of the set; ``R(s) = B({s}) / B({})`` and ``R(s, t) = B({s, t}) / B({s})``.

    Args:
        log_p: ``(n,)`` log probabilities; minus infinity for what is no sample.
        log_rest: scalar, log probability of everything that is not in the set.

    Returns:
        ``(n,)`` and ``(n, n)``.
    """
    n = len(log_p)
    dead = jnp.isneginf(log_p)
    members = (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1
    # What is left after U: the samples outside of U, summed without cancellation, and all else.
    outside = jnp.where(members, -jnp.inf, log_p)
    left = jnp.logaddexp(jax.nn.logsumexp(outside, axis=1), log_rest)
    steps = jnp.where(jnp.isneginf(outside), -jnp.inf, outside - left[:, None])
    table = jnp.zeros(2**n, log_p.dtype)
    for size in range(n - 1, -1, -1):
        these = np.flatnonzero(members.sum(1) == size)
        larger = these[:, None] | (1 << np.arange(n))
        table = table.at[these].set(jax.nn.logsumexp(steps[these] + table[larger], axis=1))
    # What is no sample counts as drawn before.
    bits = 1 << jnp.arange(n)
    none = jnp.sum(jnp.where(dead, bits, 0))
    single = table[none | bits]
    pairs = table[none | bits[:, None] | bits[None]]
    return single - table[none], jnp.where(np.eye(n, dtype=bool), 0, pairs - single[:, None])
