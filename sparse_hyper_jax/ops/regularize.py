"""Penalties on variances, which tend to collapse faster than the means find their cells."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.types import LEAST_VARIANCE


def variance_log_mean(variances: jax.Array) -> jax.Array:
    """Penalise small variances: ``-log(mean(variances))``; keeps tuples wide.

    Args:
        variances: ``(..., k, r)`` in squared index units.

    Returns:
        scalar, float32 or wider.

    Reference: Bloem 2018, arXiv 1810.09184 (its code).
    """
    return -jnp.log(jnp.maximum(jnp.mean(at_least_float32(variances)), LEAST_VARIANCE))


def variance_norm(variances: jax.Array) -> jax.Array:
    """Penalise large variances: ``sqrt(sum(variances**2))``; makes tuples settle.

    Args:
        variances: ``(..., k, r)`` in squared index units.

    Returns:
        scalar, float32 or wider; the gradient at all zeros is 0.
    """
    square = jnp.sum(jnp.square(at_least_float32(variances)))
    # The square root has no derivative at 0: take it at 1 there and discard it.
    some = square > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, square, 1.0)), 0.0)
