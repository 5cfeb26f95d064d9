"""Penalties on variances, which tend to collapse faster than the means find their cells."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.types import LEAST_VARIANCE


def variance_log_mean(variances: jax.Array) -> jax.Array:
    """Penalise small variances: ``-log(mean(variances))``; keeps tuples wide.

    Args:
        variances: ``(..., k, r)`` in squared index units.

    Returns:
        scalar, float32 or wider.

    Reference: Bloem 2018, arXiv 1810.09184 (its code).

    Example:
        >>> from sparse_hyper_jax import ops
        >>> float(ops.variance_log_mean(jnp.array([[0.5], [1.5]]))) == 0
        True
    """
    variances = at_least_float32(as_array("variances", variances))
    return -jnp.log(jnp.maximum(jnp.mean(variances), LEAST_VARIANCE))


def variance_norm(variances: jax.Array) -> jax.Array:
    """Penalise large variances: ``sqrt(sum(variances**2))``; makes tuples settle.

    Args:
        variances: ``(..., k, r)`` in squared index units.

    Returns:
        scalar, float32 or wider; the gradient at all zeros is 0.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> float(ops.variance_norm(jnp.array([[3.0], [4.0]])))
        5.0
    """
    variances = at_least_float32(as_array("variances", variances))
    # In units of the largest, whose square neither overflows nor becomes zero.
    unit = jax.lax.stop_gradient(jnp.max(jnp.abs(variances), initial=0))
    # The square root has no derivative at 0: take the norm of ones there and replace the result.
    some = ~(unit < jnp.finfo(unit.dtype).tiny)
    scaled = jnp.where(some, variances / jnp.where(some, unit, 1), 1)
    return jnp.where(some, unit * jnp.sqrt(jnp.sum(scaled * scaled)), 0)
