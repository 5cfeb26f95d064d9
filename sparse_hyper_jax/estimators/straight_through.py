"""Straight-through estimators: a hard choice forwards, the slope of a soft one backwards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.core import Tracer

from sparse_hyper_jax import checks
from sparse_hyper_jax.estimators.estimator import Estimate, Estimator, Objective, draw


@dataclass(frozen=True)
class StraightThrough(Estimator):
    """Differentiate ``f`` at a one-hot sample and pass the slope on as if it were ``p``.

    ``g_k = (diag(p_k) - p_k p_k^T) df/dz_k`` at ``z_k = one_hot(sample)``. Biased, unless ``f`` is
    linear in every row; one evaluation with its derivative.

    Reference: Bengio, Leonard and Courville 2013, arXiv 1308.3432.
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
        temperature: positive.

    Raises:
        ValueError: a temperature that is not.

    Reference: Jang, Gu and Poole 2017, arXiv 1611.01144.
    """

    temperature: float = 0.67
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

        def soften(noisy: jax.Array) -> jax.Array:
            # The largest goes before the division, which could overflow.
            largest = jax.lax.stop_gradient(jnp.max(noisy, axis=-1, keepdims=True))
            return jax.nn.softmax((noisy - largest) / self.temperature)

        return _straight_through(f, samples, soften, noisy)


def _straight_through(
    f: Objective,
    samples: jax.Array,
    soften: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
) -> Estimate:
    """Evaluate ``f`` at one-hot rows and pull its slope back through ``soften(logits)``."""
    one_hot = jax.nn.one_hot(samples[0], logits.shape[1], dtype=logits.dtype)
    value, slope = jax.value_and_grad(f)(one_hot)
    _, pull_back = jax.vjp(soften, logits)
    (gradient,) = pull_back(slope)
    return Estimate(value, gradient, samples)


def check_temperature(temperature: float | jax.Array) -> None:
    """Raise unless a static temperature is positive; one that is traced is not checked.

    Raises:
        ValueError: zero, negative, or no number.
    """
    if isinstance(temperature, Tracer):
        return
    try:
        valid = 0 < float(temperature) < float("inf")
    except (TypeError, ValueError):
        valid = False
    checks.require(
        valid,
        f"temperature={temperature}",
        "a positive number",
        "raise the temperature; 0.5 to 1 are usual",
    )
