"""An expected loss of discrete choices that ``jax.grad`` can differentiate."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.estimators.arsm import AR, ARM, ARS, ARSM
from sparse_hyper_jax.estimators.control_variates import REBAR
from sparse_hyper_jax.estimators.estimator import Estimator, Objective
from sparse_hyper_jax.estimators.reinforce import RLOO, ScoreFunction
from sparse_hyper_jax.estimators.straight_through import GumbelStraightThrough, StraightThrough
from sparse_hyper_jax.estimators.subsets import Enumeration, Subset
from sparse_hyper_jax.estimators.without_replacement import WithoutReplacement

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

    Args:
        key: a typed key.
        logits: ``(..., C)``: independent variables with ``C`` classes each, one instance; batches
            come by ``jax.vmap`` over keys and logits.
        f: maps int32 classes ``(...)`` to a scalar; for estimators that differentiate it
            (:class:`StraightThrough`, :class:`GumbelStraightThrough`, :class:`REBAR`), rows
            ``(..., C)``.
        estimator: an :class:`Estimator`, or its name with default options.

    Returns:
        scalar, float32 or wider; second derivatives in the logits are silently 0.

    Raises:
        ValueError: an unknown name, logits without classes, or ``f`` that returns no scalar.
    """
    if isinstance(estimator, str):
        checks.check_choice("estimator", estimator, tuple(ESTIMATORS))
        estimator = ESTIMATORS[estimator]
    estimate = estimator.estimate(key, logits, f)
    # The difference is 0 and its slope is 1: the value stays. Minus infinity has no difference.
    logits = jnp.where(jnp.isneginf(logits), 0, logits).astype(estimate.gradient.dtype)
    moved = logits - jax.lax.stop_gradient(logits)
    return estimate.value + jnp.sum(jax.lax.stop_gradient(estimate.gradient) * moved)
