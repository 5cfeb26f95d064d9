"""Proportions to sparse entries: the value of every point, mixed from all tuples."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.ops.bounds import at_least_float32
from sparse_hyper_jax.ops.densities import proportions_by_tuple


def mix_values(
    points: jax.Array,
    mask: jax.Array,
    means: jax.Array,
    variances: jax.Array,
    values: jax.Array,
    *,
    density: str = "gaussian",
    period: tuple[int, ...] | None = None,
) -> jax.Array:
    """Give every point the sum of its shares of the tuples' values.

    ``w_p = sum_j pi_pj v_j``, so ``sum_p w_p = sum_j v_j``, and dropped points get 0. Memory: one
    table of ``k * P`` numbers, which the gradient reads again.

    Args:
        points: int ``(P, r)``.
        mask: bool ``(P,)``, the kept mask.
        means: ``(k, r)`` in index units.
        variances: ``(k, r)`` in squared index units.
        values: ``(k,)``.
        density: see :func:`~sparse_hyper_jax.ops.log_densities`.
        period: see :func:`~sparse_hyper_jax.ops.log_densities`.

    Returns:
        ``(P,)`` mixed values, float32 or wider.

    Raises:
        ValueError: shapes that do not agree.

    Reference: Bloem 2018, arXiv 1810.09184.
    """
    checks.check_tuples(means, variances, values)
    shares = proportions_by_tuple(points, mask, means, variances, density=density, period=period)
    return jnp.matmul(at_least_float32(values), shares, precision=jax.lax.Precision.HIGHEST)
