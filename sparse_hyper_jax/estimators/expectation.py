"""An expected loss of discrete choices that ``jax.grad`` can differentiate."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import check_function, check_instance
from sparse_hyper_jax.estimators.arsm import AR, ARM, ARS, ARSM
from sparse_hyper_jax.estimators.control_variates import REBAR
from sparse_hyper_jax.estimators.estimator import (
    Estimate,
    Estimator,
    Objective,
    check_logits,
    check_scalar,
)
from sparse_hyper_jax.estimators.reinforce import RLOO, ScoreFunction
from sparse_hyper_jax.estimators.straight_through import GumbelStraightThrough, StraightThrough
from sparse_hyper_jax.estimators.subsets import Enumeration, Subset
from sparse_hyper_jax.estimators.without_replacement import WithoutReplacement
from sparse_hyper_jax.precision import wide_dtype

ESTIMATORS: dict[str, Estimator] = {
    "score_function": ScoreFunction(),
    "rloo": RLOO(),
    "ar": AR(),
    "ars": ARS(),
    "arsm": ARSM(),
    "arm": ARM(),
    "without_replacement": WithoutReplacement(),
    "rebar": REBAR(),
    "straight_through": StraightThrough(),
    "gumbel_straight_through": GumbelStraightThrough(),
    "uninformed_subset": Subset(),
    "informed_subset": Subset(informed=True),
    "enumeration": Enumeration(),
}
"""Estimators by name, with their default options."""


def expectation(
    key: jax.Array, logits: jax.Array, f: Objective, *, estimator: str | Estimator = "rloo"
) -> jax.Array:
    """Estimate ``E_{z ~ softmax(logits)}[f(z)]``, with gradients for the logits and within ``f``.

    The value is the estimator's. Its gradient towards ``logits`` is the estimator's; towards
    whatever parameters ``f`` closes over it is the ordinary one, with the samples held fixed::

        def loss(parameters, logits, key):
            return expectation(key, logits, lambda z: energy(parameters, z), estimator="arsm")

        jax.grad(loss, argnums=(0, 1))(parameters, logits, key)

    ``f`` gets what the estimator asks for, classes or rows: mind that when you change the
    estimator. If ``f`` contains ``log q(z)`` of the same logits, stop its gradient there: the
    expected score is 0, and an ordinary gradient would only add noise.

    Second derivatives, too, are those of the expectation: exact by :class:`Enumeration`, unbiased
    by all others but :class:`Subset`, also where the first derivatives are biased. Those of a
    logit and a parameter of ``f`` come from the estimator, or from the score function where it
    differentiates ``f``; those of two logits come from the score function, and are as noisy.
    Derivatives of third and higher order mean nothing.

    Args:
        key: a typed key.
        logits: ``(..., C)``: independent variables with ``C`` classes each, one instance; batches
            come by ``jax.vmap`` over keys and logits. Minus infinity bans a class, NaN and plus
            infinity give NaN; see the page Rules of the documentation.
        f: maps int32 classes ``(...)`` to a real scalar; for estimators that differentiate it
            (:class:`StraightThrough`, :class:`GumbelStraightThrough`, :class:`REBAR`), rows
            ``(..., C)``.
        estimator: an :class:`Estimator`, or its name with default options.

    Returns:
        scalar, float32 or wider.

    Raises:
        ValueError: no key, an unknown name, no instance of an estimator, logits without classes, or
            ``f`` that is no function or gives anything but one real number.

    Reference: Foerster et al. 2018, arXiv 1802.05098, for the second order.
    """
    if isinstance(estimator, str):
        checks.check_choice("estimator", estimator, tuple(ESTIMATORS))
        estimator = ESTIMATORS[estimator]
    check_instance("estimator", estimator, Estimator, str)
    check_function("f", f)
    logits = check_logits(logits)
    step = _Step.of(logits)
    if estimator.relaxed:
        return _with_stopped_gradient(estimator.estimate(key, logits, f), step)

    def bent(z: jax.Array) -> jax.Array:
        value = check_scalar(f(z))
        # Of integers and 16 bits as well: the factor has derivatives to lose.
        dtype = wide_dtype(value, logits)
        return value.astype(dtype) * step.bend(z).astype(dtype)

    estimate = estimator.estimate(key, logits, bent)
    return estimate.value + step.along(estimate.gradient)


class _Step(NamedTuple):
    """A step of the logits, which is 0 but has their slope: derivatives are made with it.

    Attributes:
        moved: ``(..., C)``, ``logits - stop(logits)``; minus infinity does not move.
        chances: ``(..., C)``, the probabilities, as constants.
    """

    moved: jax.Array
    chances: jax.Array

    @classmethod
    def of(cls, logits: jax.Array) -> "_Step":
        finite = jnp.where(jnp.isneginf(logits), 0, logits)
        fixed = jax.lax.stop_gradient(logits)
        return cls(finite - jax.lax.stop_gradient(finite), jax.nn.softmax(fixed))

    def along(self, gradient: jax.Array) -> jax.Array:
        """Give 0 with a first derivative, and if it is not stopped, mixed second ones."""
        return jnp.sum(gradient * self.moved.astype(gradient.dtype))

    def score(self, z: jax.Array) -> jax.Array:
        """Give 0 with the derivative of ``log p(z)``."""
        # As a product: a gather would be a scatter backwards, which is slow on a CPU.
        chosen = jax.nn.one_hot(z, self.moved.shape[-1], dtype=self.moved.dtype)
        exact = jax.lax.Precision.HIGHEST
        return jnp.vdot(chosen, self.moved, precision=exact) - jnp.sum(self.chances * self.moved)

    def bend(self, z: jax.Array) -> jax.Array:
        """Give 1 with the second derivative of ``p(z) / stop(p(z))``, but not the first.

        The factor has the second derivative ``score score^T - (diag(p) - p p^T)``, so that the mean
        of ``f`` times it has that of the mean of ``f``.
        """
        mean = jnp.sum(self.chances * self.moved, axis=-1)
        spread = jnp.sum(self.chances * self.moved**2) - jnp.sum(mean**2)
        return 1 + (self.score(z) ** 2 - spread) / 2


def _with_stopped_gradient(estimate: Estimate, step: _Step) -> jax.Array:
    """Give the value of one sample with the estimated gradient.

    That contains a derivative of ``f``, so that differentiating it again would be dear, and in most
    cases biased: the second order is that of the score function.
    """
    value, z = estimate.value, estimate.samples[0]
    mixed = (value - jax.lax.stop_gradient(value)) * step.score(z).astype(value.dtype)
    first = step.along(jax.lax.stop_gradient(estimate.gradient)).astype(value.dtype)
    return value * step.bend(z).astype(value.dtype) + first + mixed
