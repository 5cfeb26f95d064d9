"""REBAR and RELAX: the score function minus a relaxed control variate plus its gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_function, check_random_key
from sparse_hyper_jax.estimators.estimator import (
    Estimate,
    Estimator,
    Objective,
    check_scalar,
    sum_of_scores,
)
from sparse_hyper_jax.estimators.straight_through import check_temperature, soften
from sparse_hyper_jax.ops.inside import clip_inside
from sparse_hyper_jax.precision import at_least_float32

LEAST_LOGIT = -1e30
"""What stands for the logit of a banned class, since minus infinity has no slope."""


@dataclass(frozen=True)
class REBAR(Estimator):
    """The score function with the relaxed ``f`` as control variate.

    With ``z = log p + Gumbel`` and its winner ``b``, ``zt`` drawn again given that ``b`` wins, and
    ``c(z) = f(softmax(z / temperature))``::

        g = (f(b) - scale c(zt)) grad log p(b) + scale (grad c(z) - grad c(zt))

    Unbiased for any scale and temperature. Three evaluations, two of them with a derivative.

    Args:
        temperature: at least the smallest normal number of float32; may be traced and trained,
            like ``scale``, to lower ``sum(estimate.gradient ** 2)``.
        scale: weight of the control variate, any number.

    Raises:
        ValueError: a temperature that is known and smaller, or a scale that is no number.

    Reference: Tucker et al. 2017, arXiv 1703.07370.
    """

    temperature: float | jax.Array = 0.5
    scale: float | jax.Array = 1.0
    relaxed: ClassVar[bool] = True

    def __post_init__(self):
        check_temperature(self.temperature)
        checks.check_number("scale", self.scale)

    def evaluations(self, shape: Sequence[int]) -> int:
        """Count the evaluations of ``f``."""
        return 3

    def estimate_rows(self, key: jax.Array, logits: jax.Array, f: Objective) -> Estimate:
        """Estimate for rows ``(K, C)``."""

        def hard(samples: jax.Array) -> jax.Array:
            return f(jax.nn.one_hot(samples, logits.shape[1], dtype=logits.dtype))

        def soft(z: jax.Array) -> jax.Array:
            return f(soften(z, self.temperature))

        return _with_control_variate(key, logits, hard, soft, self.scale)


@dataclass(frozen=True)
class RELAX(Estimator):
    """The score function with a free control variate: :class:`REBAR` with any ``c(z)``.

    One evaluation of ``f``, which needs no derivative. The surrogate is trained along to lower the
    variance, of which ``sum(estimate.gradient ** 2)`` is an unbiased estimate up to a constant::

        def variance(parameters):
            estimator = RELAX(lambda z: network(parameters, z))
            return jnp.sum(estimator.estimate(key, logits, f).gradient ** 2)

        slope = jax.grad(variance)(parameters)

    Args:
        surrogate: maps perturbed log probabilities ``(K, C)``, one row per variable, to a scalar,
            differentiably; that of a banned class is about -1e30, so pass them through a softmax.
        scale: weight of the surrogate, any number; may be traced.

    Raises:
        ValueError: a surrogate that is no function, or a scale that is no number.

    Reference: Grathwohl et al. 2018, arXiv 1711.00123.
    """

    surrogate: Callable[[jax.Array], jax.Array]
    scale: float | jax.Array = 1.0

    def __post_init__(self):
        check_function("surrogate", self.surrogate)
        checks.check_number("scale", self.scale)

    def evaluations(self, shape: Sequence[int]) -> int:
        """Count the evaluations of ``f``."""
        return 1

    def estimate_rows(self, key: jax.Array, logits: jax.Array, f: Objective) -> Estimate:
        """Estimate for rows ``(K, C)``."""
        return _with_control_variate(key, logits, f, self.surrogate, self.scale)


def _with_control_variate(
    key: jax.Array,
    logits: jax.Array,
    f: Objective,
    surrogate: Callable[[jax.Array], jax.Array],
    scale: float | jax.Array,
) -> Estimate:
    """Estimate with ``c = surrogate``, a function of perturbed log probabilities ``(K, C)``."""

    def control(z: jax.Array) -> jax.Array:
        # In the dtype of f, which may be wider than that of the logits.
        return check_scalar(surrogate(z), name="a control variate").astype(value.dtype)

    free_key, tied_key = jax.random.split(key)
    noise = jax.random.gumbel(free_key, logits.shape, logits.dtype)
    winners = jnp.argmax(jax.nn.log_softmax(logits) + noise, axis=-1)
    value = f(winners)

    def free(logits: jax.Array) -> jax.Array:
        return control(_log_probabilities(logits) + noise)

    def tied(logits: jax.Array) -> jax.Array:
        return control(_perturb(tied_key, _log_probabilities(logits), winners))

    free_slope = jax.grad(free)(logits)
    again, tied_slope = jax.value_and_grad(tied)(logits)
    scale = jnp.asarray(scale, value.dtype)
    score = sum_of_scores((value - scale * again)[None], winners[None], logits)
    slopes = (free_slope - tied_slope).astype(value.dtype)
    return Estimate(value, score + scale * slopes, winners[None])


def _log_probabilities(logits: jax.Array) -> jax.Array:
    return jnp.maximum(jax.nn.log_softmax(logits), LEAST_LOGIT)


def perturb_given_winner(
    key: jax.Array, log_probabilities: jax.Array, winners: jax.Array
) -> jax.Array:
    """Draw Gumbel-perturbed log probabilities of which given classes are the largest.

    The largest, ``m``, is itself a Gumbel variate; the others are cut off there:
    ``z_i = -log(exp(-m) + E_i / p_i)`` with exponential variates ``E_i``.

    Args:
        key: a typed key.
        log_probabilities: ``(K, C)``, normalised; of integers or 16 bits they count as float32.
            A row with NaN gives NaN.
        winners: int ``(K,)``; outside of ``[0, C)`` the row is padding and gives 0.

    Returns:
        ``(K, C)`` in float32 or wider, differentiable in ``log_probabilities``.

    Raises:
        ValueError: no key, or shapes that do not agree.

    Reference: Maddison, Tarlow and Minka 2014, "A* Sampling", arXiv 1411.0030.
    """
    check_random_key(key)
    rows = at_least_float32(as_array("log_probabilities", log_probabilities))
    winners = as_array("winners", winners, "integers")
    checks.check_shape("log_probabilities", rows, (None, None), "(K, C): one row per variable")
    checks.check_shape("winners", winners, (rows.shape[0],), "one class per variable")
    winners, inside = clip_inside(winners[:, None], rows.shape[1:])
    winners, inside = winners[:, 0], inside[:, None]
    rows = jnp.where(inside, rows, 0)
    # The winner's own entry does not depend on its probability, which is 1 less the others'.
    spoilt = jnp.where(jnp.any(jnp.isnan(rows), axis=1, keepdims=True), jnp.nan, 0.0)
    return jnp.where(inside, _perturb(key, rows, winners) + spoilt, 0)


def _perturb(key: jax.Array, log_probabilities: jax.Array, winners: jax.Array) -> jax.Array:
    """Do what :func:`perturb_given_winner` says, without checks."""
    top_key, rest_key = jax.random.split(key)
    shape, dtype = log_probabilities.shape, log_probabilities.dtype
    top = jax.random.gumbel(top_key, (shape[0], 1), dtype)
    times = jax.random.exponential(rest_key, shape, dtype)
    logs = jnp.log(jnp.maximum(times, jnp.finfo(dtype).tiny))
    rest = -jnp.logaddexp(-top, logs - log_probabilities)
    return jnp.where(jax.nn.one_hot(winners, shape[1], dtype=bool), top, rest)
