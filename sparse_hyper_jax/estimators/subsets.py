"""The expectation restricted to a few choices, or taken over all of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.estimators.beam import check_distinct, sample_without_replacement
from sparse_hyper_jax.estimators.estimator import (
    Estimate,
    Estimator,
    Objective,
    check_field,
    evaluate,
    sum_of_scores,
)


@dataclass(frozen=True)
class Subset(Estimator):
    """The softmax restricted to ``n`` distinct joint choices, the estimator of the hyperlayer.

    ``g = grad sum_{s in S} pi_s f(s)`` with ``pi = softmax of log p(s) over S``. ``S`` is drawn
    uniformly (uninformed), or holds the most likely choice and others drawn uniformly (informed).
    Biased, as a ratio estimator, and exact if ``S`` holds all choices.

    Args:
        num_samples: ``n``, at least 2, at most the number of joint choices.
        informed: whether the most likely choice is always among them.

    Raises:
        ValueError: fewer.

    Reference: Bloem 2018, arXiv 1810.09184, and its code.

    Example:
        >>> from sparse_hyper_jax.estimators import Enumeration, Subset
        >>> logits, f = jnp.array([0.5, 0.0, -0.5]), lambda z: (z - 1.0) ** 2
        >>> exact = Enumeration().estimate(jax.random.key(0), logits, f)
        >>> estimate = Subset(num_samples=3).estimate(jax.random.key(0), logits, f)
        >>> bool(jnp.allclose(estimate.gradient, exact.gradient))  # a subset of all three: exact
        True
    """

    num_samples: int = 5
    informed: bool = False

    def __post_init__(self):
        check_field(self, "num_samples", least=2)
        checks.check_flag("informed", self.informed)

    def evaluations(self, shape: Sequence[int]) -> int:
        """Count the evaluations of ``f``."""
        check_distinct(self.num_samples, math.prod(shape[:-1]), shape[-1])
        return self.num_samples

    def estimate_rows(self, key: jax.Array, logits: jax.Array, f: Objective) -> Estimate:
        """Estimate for rows ``(K, C)``."""
        level = jnp.where(jnp.isneginf(logits), -jnp.inf, 0).astype(logits.dtype)
        samples, alive = sample_without_replacement(key, level, self.num_samples)
        alive = jnp.isfinite(alive)
        if self.informed:
            mode = jnp.argmax(logits, axis=-1).astype(jnp.int32)
            present = jnp.all(samples == mode, axis=1) & alive
            # The draws are exchangeable: any of them may give way, if the mode is missing.
            last = jnp.where(jnp.any(present), samples[-1], mode)
            samples = samples.at[-1].set(last)
            alive = alive.at[-1].set(alive[-1] | ~jnp.any(present))
        return restricted(logits, samples, alive, f)


@dataclass(frozen=True)
class Enumeration(Estimator):
    """The exact expectation: ``f`` at all ``C ** K`` joint choices. The oracle of the others.

    Example:
        >>> from sparse_hyper_jax.estimators import Enumeration
        >>> logits, f = jnp.array([[0.5, 0.0, -0.5], [0.0, 1.0, 0.0]]), lambda z: jnp.prod(z - 1.0)
        >>> estimate = Enumeration().estimate(jax.random.key(0), logits, f)
        >>> mean = lambda logits: jnp.prod(jax.nn.softmax(logits) @ jnp.array([-1.0, 0.0, 1.0]))
        >>> bool(jnp.allclose(estimate.gradient, jax.grad(mean)(logits))), len(estimate.samples)
        (True, 9)
    """

    def evaluations(self, shape: Sequence[int]) -> int:
        """Count the evaluations of ``f``."""
        return int(shape[-1]) ** math.prod(shape[:-1])

    def estimate_rows(self, key: jax.Array, logits: jax.Array, f: Objective) -> Estimate:
        """Estimate for rows ``(K, C)``."""
        variables, classes = logits.shape
        samples = np.indices((classes,) * variables, np.int32).reshape(variables, -1).T
        return restricted(logits, jnp.asarray(samples), jnp.ones(len(samples), bool), f)


def restricted(logits: jax.Array, samples: jax.Array, alive: jax.Array, f: Objective) -> Estimate:
    """Give ``sum_s pi_s f(s)`` and its gradient, with ``pi`` a softmax over the given choices.

    Args:
        logits: ``(K, C)``.
        samples: int ``(n, K)``.
        alive: bool ``(n,)``, at least one true; the others do not count.
        f: maps ``(K,)`` to a scalar.
    """
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), samples.T, axis=1)
    shares = jax.nn.softmax(jnp.where(alive, jnp.sum(chosen, axis=0), -jnp.inf))
    # What has no share is not evaluated: f may be infinite there.
    likeliest = jnp.arange(len(samples)) == jnp.argmax(shares)
    alone = jnp.where(likeliest[:, None], samples, 0)
    instead = jnp.sum(alone, axis=0, keepdims=True, dtype=samples.dtype)
    used = jnp.where(shares[:, None] > 0, samples, instead)
    values = evaluate(f, used)
    shares = shares.astype(values.dtype)
    value = jnp.sum(shares * values)
    return Estimate(value, sum_of_scores(shares * (values - value), samples, logits), samples)
