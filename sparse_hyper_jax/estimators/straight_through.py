"""Straight-through estimators: a hard choice forwards, the slope of a soft one backwards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.estimators.estimator import Estimate, Estimator, Objective, draw


@dataclass(frozen=True)
class StraightThrough(Estimator):
    """Differentiate ``f`` at a one-hot sample and pass the slope on as if it were ``p``.

    ``g_k = (diag(p_k) - p_k p_k^T) df/dz_k`` at ``z_k = one_hot(sample)``. Biased, unless ``f`` is
    linear in every row; one evaluation with its derivative.

    Reference: Bengio, Leonard and Courville 2013, arXiv 1308.3432.

    Example:
        >>> from sparse_hyper_jax.estimators import Enumeration, StraightThrough
        >>> logits, scores = jnp.array([0.5, 0.0, -0.5]), jnp.arange(3.0)
        >>> key = jax.random.key(0)
        >>> estimate = StraightThrough().estimate(key, logits, lambda row: row @ scores)
        >>> exact = Enumeration().estimate(key, logits, lambda z: scores[z])
        >>> bool(jnp.allclose(estimate.gradient, exact.gradient))  # exact: f is linear
        True
    """

    relaxed: ClassVar[bool] = True

    def evaluations(self, shape: Sequence[int]) -> int:
        """Count the evaluations of ``f``."""
        return 1

    def estimate_rows(self, key: jax.Array, logits: jax.Array, f: Objective) -> Estimate:
        """Estimate for rows ``(K, C)``."""
        samples = draw(key, logits, 1)
        return _straight_through(f, samples, jax.nn.softmax, logits)


@dataclass(frozen=True)
class GumbelStraightThrough(Estimator):
    """The straight-through estimator of a Gumbel softmax.

    ``y_k = softmax((phi_k + G_k) / temperature)`` with Gumbel noise ``G``; forwards the one-hot row
    of its largest entry, backwards the slope of ``y``. Biased; low temperatures trade bias for
    variance. One evaluation with its derivative.

    Args:
        temperature: at least the smallest normal number of float32; may be traced.

    Raises:
        ValueError: a temperature that is known and smaller.

    Reference: Jang, Gu and Poole 2017, arXiv 1611.01144.

    Example:
        >>> from sparse_hyper_jax.diagnostics import gradient_report
        >>> from sparse_hyper_jax.estimators import Enumeration, GumbelStraightThrough
        >>> key, logits = jax.random.key(0), jnp.array([0.5, 0.0, -0.5])
        >>> exact = Enumeration().estimate(key, logits, lambda z: (z - 1.0) ** 2).gradient
        >>> f = lambda row: (row @ jnp.arange(3.0) - 1.0) ** 2  # the same of one-hot rows
        >>> estimate = lambda key: GumbelStraightThrough(0.5).estimate(key, logits, f).gradient
        >>> report = gradient_report(exact, estimate, jax.random.split(key, 2000))
        >>> bool(report.bias > 3 * report.noise)  # it is biased
        True
    """

    temperature: float | jax.Array = 0.67
    relaxed: ClassVar[bool] = True

    def __post_init__(self):
        check_temperature(self.temperature)

    def evaluations(self, shape: Sequence[int]) -> int:
        """Count the evaluations of ``f``."""
        return 1

    def estimate_rows(self, key: jax.Array, logits: jax.Array, f: Objective) -> Estimate:
        """Estimate for rows ``(K, C)``."""
        noisy = logits + jax.random.gumbel(key, logits.shape, logits.dtype)
        samples = jnp.argmax(noisy, axis=-1)[None]

        return _straight_through(f, samples, lambda z: soften(z, self.temperature), noisy)


def _straight_through(
    f: Objective,
    samples: jax.Array,
    relaxed: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
) -> Estimate:
    """Evaluate ``f`` at one-hot rows and pull its slope back through ``relaxed(logits)``."""
    one_hot = jax.nn.one_hot(samples[0], logits.shape[1], dtype=logits.dtype)
    value, slope = jax.value_and_grad(f)(one_hot)
    _, pull_back = jax.vjp(relaxed, logits)
    (gradient,) = pull_back(slope)
    return Estimate(value, gradient, samples)


def soften(rows: jax.Array, temperature: float | jax.Array) -> jax.Array:
    """Give ``softmax(rows / temperature)``."""
    # The largest goes before the division, which could overflow.
    largest = jax.lax.stop_gradient(jnp.max(rows, axis=-1, keepdims=True))
    return jax.nn.softmax((rows - largest) / jnp.asarray(temperature, rows.dtype))


def check_temperature(temperature: float | jax.Array) -> None:
    """Raise unless a temperature is a divisor; one that is traced is not checked.

    Raises:
        ValueError: below the smallest normal number of float32, infinite, or no number.
    """
    least, most = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
    checks.check_number("temperature", temperature, at_least=least, at_most=most)
