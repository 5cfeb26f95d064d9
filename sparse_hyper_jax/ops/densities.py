"""Integer tuples to proportions: the share of each tuple's value that each point receives."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.ops.bounds import at_least_float32
from sparse_hyper_jax.types import LEAST_VARIANCE


def _gaussian(squared: list[jax.Array]) -> jax.Array:
    return -0.5 * sum(squared)


def _laplace(squared: list[jax.Array]) -> jax.Array:
    # sqrt has no derivative at 0: take it at 1 there and discard the result (double where).
    def root(square: jax.Array) -> jax.Array:
        away = square > 0
        return jnp.where(away, jnp.sqrt(jnp.where(away, square, 1.0)), 0.0)

    return -jnp.sqrt(2.0) * sum(root(square) for square in squared)


def _student_t(squared: list[jax.Array]) -> jax.Array:
    return -0.5 * (len(squared) + 1) * jnp.log1p(sum(squared))


DENSITIES: dict[str, Callable[[list[jax.Array]], jax.Array]] = {
    "gaussian": _gaussian,
    "laplace": _laplace,
    "student_t": _student_t,
}
"""Log densities, up to a constant, of the squared distances in units of the variance, per axis."""


def log_densities(
    points: jax.Array,
    means: jax.Array,
    variances: jax.Array,
    *,
    density: str = "gaussian",
    period: tuple[int, ...] | None = None,
) -> jax.Array:
    """Give the unnormalised log density of every tuple at every point.

    With ``z_c = (u_pc - mu_jc)^2 / s_jc`` per axis ``c`` of ``r``::

        gaussian    -1/2 sum_c z_c
        laplace     -sum_c sqrt(2 z_c)
        student_t   -(r + 1)/2 log(1 + sum_c z_c)          one degree of freedom (Cauchy)

    The last two fall off more slowly, so that a narrow tuple still feels distant points. Constant
    factors of the density are left out: they cancel in the proportions.

    Args:
        points: int ``(P, r)``.
        means: ``(k, r)`` in index units.
        variances: ``(k, r)`` in squared index units; below 1e-12 they count as 1e-12.
        density: ``"gaussian"``, ``"laplace"`` or ``"student_t"``.
        period: lengths of the axes if these are circles: distances go the shorter way round.

    Returns:
        ``(P, k)`` log densities, float32 or wider.

    Raises:
        ValueError: shapes that do not agree, or an unknown density.

    Reference: Bloem 2018, arXiv 1810.09184.
    """
    return _log_densities_by_tuple(points, means, variances, density, period).T


def proportions(
    points: jax.Array,
    mask: jax.Array,
    means: jax.Array,
    variances: jax.Array,
    *,
    density: str = "gaussian",
    period: tuple[int, ...] | None = None,
) -> jax.Array:
    """Share out every tuple among the kept points, by density.

    ``pi_pj = mask_p d_pj / sum_q mask_q d_qj``, as a softmax over points in log space, so that it
    is finite for any variance; a dropped point receives exactly 0.

    Args:
        points: int ``(P, r)``.
        mask: bool ``(P,)``, at least one true: the kept mask.
        means: ``(k, r)`` in index units.
        variances: ``(k, r)`` in squared index units.
        density: see :func:`log_densities`.
        period: see :func:`log_densities`.

    Returns:
        ``(P, k)``; every column sums to 1 over the points.

    Raises:
        ValueError: shapes that do not agree.
    """
    return proportions_by_tuple(points, mask, means, variances, density=density, period=period).T


def proportions_by_tuple(
    points: jax.Array,
    mask: jax.Array,
    means: jax.Array,
    variances: jax.Array,
    *,
    density: str = "gaussian",
    period: tuple[int, ...] | None = None,
) -> jax.Array:
    """Give :func:`proportions` transposed, ``(k, P)``: the order in which memory is read fast."""
    # A common factor cancels in the softmax. It has to go before: at a variance of 1e-12 rounding
    # changes a log density by thousands, and where the compiler computes it twice, once for the
    # maximum and once for exp(), and rounds differently, exp(log density - maximum) overflows.
    relative = density == "gaussian"
    logits = _log_densities_by_tuple(points, means, variances, density, period, relative=relative)
    checks.check_shape("mask", mask, (logits.shape[1],), "one flag per point")
    # -inf before the softmax, not 0 after it: a dropped point takes no part in the sum, and its
    # gradient is an exact 0 because the kept maximum keeps exp() away from NaN.
    return jax.nn.softmax(jnp.where(mask, logits, -jnp.inf), axis=1)


def _log_densities_by_tuple(
    points: jax.Array,
    means: jax.Array,
    variances: jax.Array,
    density: str,
    period: tuple[int, ...] | None,
    *,
    relative: bool = False,
) -> jax.Array:
    """Give the table; if ``relative`` with squares above those of the cell nearest to the mean."""
    checks.check_choice("density", density, tuple(DENSITIES))
    _, r = checks.check_tuples(means, variances)
    checks.check_shape("points", points, (None, r), "(P, r): one row per point, r as in means")
    means, variances = at_least_float32(means), at_least_float32(variances)
    points = jnp.asarray(points, means.dtype)
    precisions = 1 / jnp.maximum(variances, LEAST_VARIANCE)
    squared = []
    # One axis at a time: a (k, P, r) table of differences would be r times as large.
    for axis in range(r):
        place, mean, turns = points[:, axis], means[:, axis, None], 0.0
        difference = place - mean
        if period is not None:
            turns = period[axis] * jnp.round(difference / period[axis])
            difference -= turns
        if relative:
            # d^2 - e^2 as (d - e) (d + e): the first factor holds whole numbers only, so that the
            # nearest cell gets an exact 0 however the compiler rounds.
            nearest = jax.lax.stop_gradient(jnp.round(mean))
            if period is None:
                nearest = jnp.clip(nearest, jnp.min(place), jnp.max(place))
            square = (place - nearest - turns) * (difference + (nearest - mean))
        else:
            square = jnp.square(difference)
        squared.append(square * precisions[:, axis, None])
    return DENSITIES[density](squared)
