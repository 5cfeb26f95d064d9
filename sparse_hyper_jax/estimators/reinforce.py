"""The score function estimator (REINFORCE), alone and with the other samples as its baseline."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from sparse_hyper_jax.estimators.estimator import (
    Estimate,
    Estimator,
    Objective,
    check_field,
    draw,
    evaluate,
    sum_of_scores,
)


@dataclass(frozen=True)
class ScoreFunction(Estimator):
    """The score function estimator, REINFORCE: ``1/n sum_i f(z_i) (e_{z_i} - p)``.

    Unbiased; needs nothing but values of ``f``. Its variance grows with the size of ``f``, also
    with that of a constant added to it: :class:`RLOO` cures that.

    Args:
        num_samples: draws ``n``, at least 1.

    Raises:
        ValueError: fewer.

    Reference: Williams 1992.

    Example:
        >>> from sparse_hyper_jax.diagnostics import gradient_report
        >>> from sparse_hyper_jax.estimators import Enumeration, ScoreFunction
        >>> logits, f = jnp.array([0.5, 0.0, -0.5]), lambda z: (z - 1.0) ** 2
        >>> exact = Enumeration().estimate(jax.random.key(0), logits, f).gradient
        >>> estimate = lambda key: ScoreFunction(num_samples=8).estimate(key, logits, f).gradient
        >>> report = gradient_report(exact, estimate, jax.random.split(jax.random.key(1), 2000))
        >>> bool(report.largest_z < 4)  # no bias is seen
        True
    """

    num_samples: int = 1

    def __post_init__(self):
        check_field(self, "num_samples", least=1)

    def evaluations(self, shape: Sequence[int]) -> int:
        """Count the evaluations of ``f``."""
        return self.num_samples

    def estimate_rows(self, key: jax.Array, logits: jax.Array, f: Objective) -> Estimate:
        """Estimate for rows ``(K, C)``."""
        samples = draw(key, logits, self.num_samples)
        values = evaluate(f, samples)
        gradient = sum_of_scores(values / self.num_samples, samples, logits)
        return Estimate(jnp.mean(values), gradient, samples)


@dataclass(frozen=True)
class RLOO(Estimator):
    """The score function with a leave-one-out baseline: ``1/(n-1) sum_i (f_i - mean f) e_{z_i}``.

    Every draw is compared with the mean of the others, which keeps the estimate unbiased. The first
    choice where ``f`` can be evaluated several times.

    Args:
        num_samples: draws ``n``, at least 2.

    Raises:
        ValueError: fewer.

    Reference: Kool, van Hoof and Welling 2019, "Buy 4 REINFORCE samples, get a baseline for free!".

    Example:
        >>> from sparse_hyper_jax.diagnostics import gradient_report
        >>> from sparse_hyper_jax.estimators import RLOO, Enumeration, ScoreFunction
        >>> logits, f = jnp.zeros((2, 3)), lambda z: 10 + jnp.sum((z - 1.0) ** 2)
        >>> key, keys = jax.random.key(0), jax.random.split(jax.random.key(1), 500)
        >>> exact = Enumeration().estimate(key, logits, f).gradient
        >>> variance = lambda estimator: gradient_report(
        ...     exact, lambda key: estimator.estimate(key, logits, f).gradient, keys).variance
        >>> bool(variance(RLOO(4)) < variance(ScoreFunction(4)) / 50)  # 10 adds no noise
        True
    """

    num_samples: int = 4

    def __post_init__(self):
        check_field(self, "num_samples", least=2)

    def evaluations(self, shape: Sequence[int]) -> int:
        """Count the evaluations of ``f``."""
        return self.num_samples

    def estimate_rows(self, key: jax.Array, logits: jax.Array, f: Objective) -> Estimate:
        """Estimate for rows ``(K, C)``."""
        samples = draw(key, logits, self.num_samples)
        values = evaluate(f, samples)
        mean = jnp.mean(values)
        # The first value goes before the rest, so that equal values cancel exactly.
        differences = values - values[0]
        weights = (differences - jnp.mean(differences)) / (self.num_samples - 1)
        return Estimate(mean, sum_of_scores(weights, samples, logits), samples)
