"""Integer tuples to proportions: the share of each tuple's value that each point receives."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.types import LEAST_VARIANCE, ContinuousTuples


def _gaussian(squared: list[jax.Array]) -> jax.Array:
    return -0.5 * sum(squared[1:], squared[0])


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
    _, rank = checks.check_tuples(means, variances)
    check_points(points, rank)
    check_density(density)
    means, variances = at_least_float32(means), at_least_float32(variances)
    places = _turn(coordinates(points, means), means, period)
    precisions = 1 / jnp.maximum(variances, LEAST_VARIANCE)
    return DENSITIES[density](_squares(places, means, precisions)).T


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
    _, rank = checks.check_tuples(means, variances)
    check_points(points, rank, mask)
    check_density(density)
    means, variances = at_least_float32(means), at_least_float32(variances)
    tuples = ContinuousTuples(means, variances, jnp.ones(len(means), means.dtype))
    axes = coordinates(points, means)
    return share_values(axes, mask, tuples, density=density, period=period).T


def share_values(
    axes: Sequence[jax.Array],
    mask: jax.Array,
    tuples: ContinuousTuples,
    *,
    density: str = "gaussian",
    period: tuple[int, ...] | None = None,
    summed: bool = False,
) -> jax.Array:
    """Share out the tuples' values among points that all see: ``v_j pi_pj``, as ``(k, P)``.

    Args:
        axes: from :func:`coordinates`.
        mask: bool ``(P,)``.
        tuples: ``k`` tuples, float32 or wider.
        density: name of the density.
        period: lengths of the axes if these are circles.
        summed: give the sum over the tuples, ``(P,)``.
    """
    places = _turn(axes, tuples.means, period)
    origins = jnp.round(jax.lax.stop_gradient(tuples.means))
    if period is None:
        low = jnp.stack([jnp.min(axis) for axis in axes])
        high = jnp.stack([jnp.max(axis) for axis in axes])
        origins = jnp.clip(origins, low, high)
    return share_among(places, mask, tuples, origins, density=density, summed=summed)


def share_among(
    places: Sequence[jax.Array],
    mask: jax.Array,
    tuples: ContinuousTuples,
    origins: jax.Array,
    *,
    density: str,
    summed: bool = False,
) -> jax.Array:
    """Share out every tuple's value among the points that it sees, by density.

    Args:
        places: the points' coordinates as whole floats, one array per axis: ``(P,)`` where all
            tuples see the same points, ``(k, P)`` where each has its own.
        mask: bool ``(P,)`` or ``(k, P)``, at least one true for every tuple.
        tuples: ``k`` tuples, float32 or wider.
        origins: ``(k, r)`` whole floats near the means, in the range of the points.
        density: name of the density.
        summed: give the sum over the tuples.

    Returns:
        ``(k, P)``, of which row ``j`` sums to the value of tuple ``j``; ``(P,)`` if summed.
    """
    means, variances, values = tuples
    precisions = 1 / jnp.maximum(variances, LEAST_VARIANCE)
    if density == "gaussian":
        return _share_gaussian(summed, tuple(places), mask, means, precisions, values, origins)
    logits = DENSITIES[density](_squares(places, means, precisions))
    return _weigh(summed, values, _masked_softmax(logits, mask))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _share_gaussian(
    summed: bool, places: tuple[jax.Array, ...], mask: jax.Array, *tuples: jax.Array
) -> jax.Array:
    means, precisions, values, origins = tuples
    return _weigh(summed, values, _gaussian_shares(places, mask, means, precisions, origins))


@_share_gaussian.defjvp
def _share_gaussian_jvp(summed: bool, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # The derivative in closed form: with logits l_pj and d = u - o, e = (u - mu) + (o - mu),
    # dl_pj = sum_c d e (-1/2 dprecision) + d precision dmu. Factors of a tuple come before those of
    # the table, and the derivative backwards, its transpose, takes sums over one table, once.
    places, mask, means, precisions, values, origins = primals
    *_, by_mean, by_precision, by_value, _ = tangents
    shares = _gaussian_shares(places, mask, means, precisions, origins)
    slopes = values[:, None] * precisions * by_mean
    changes = -0.5 * values[:, None] * by_precision
    steps, totals = _steps_and_totals(places, means, origins)
    weighted = shares * sum(
        slope * step + change * (step * total)
        for step, total, slope, change in zip(
            steps, totals, _columns(slopes), _columns(changes), strict=True
        )
    )
    change = _weigh(summed, by_value - jnp.sum(weighted, axis=1), shares)
    change += jnp.sum(weighted, axis=0) if summed else weighted
    return _weigh(summed, values, shares), change


def _weigh(summed: bool, weights: jax.Array, shares: jax.Array) -> jax.Array:
    if summed:
        return jnp.matmul(weights, shares, precision=jax.lax.Precision.HIGHEST)
    return weights[:, None] * shares


def _gaussian_shares(
    places: Sequence[jax.Array],
    mask: jax.Array,
    means: jax.Array,
    precisions: jax.Array,
    origins: jax.Array,
) -> jax.Array:
    # A common factor cancels in the softmax. It has to go before: at a variance of 1e-12 rounding
    # changes a log density by thousands, and where the compiler computes it twice, once for the
    # maximum and once for exp(), and rounds differently, exp(log density - maximum) overflows.
    # So squares count from that of the origin, d^2 - e^2 as (d - e) (d + e): the first factor holds
    # whole numbers only, and the origin itself gets an exact 0 however the compiler rounds.
    steps, totals = _steps_and_totals(places, means, origins)
    squares = [
        step * total * precision
        for step, total, precision in zip(steps, totals, _columns(precisions), strict=True)
    ]
    return _masked_softmax(_gaussian(squares), mask)


def _steps_and_totals(
    places: Sequence[jax.Array], means: jax.Array, origins: jax.Array
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Give ``u - o`` and ``(u - mu) + (o - mu)`` per axis, each ``(k, P)``."""
    steps, totals = [], []
    for place, mean, origin in zip(places, _columns(means), _columns(origins), strict=True):
        steps.append(place - origin)
        totals.append((place - mean) + (origin - mean))
    return steps, totals


def _masked_softmax(logits: jax.Array, mask: jax.Array) -> jax.Array:
    # -inf before the softmax, not 0 after it: a dropped point takes no part in the sum, and its
    # gradient is an exact 0 because the kept maximum keeps exp() away from NaN.
    return jax.nn.softmax(jnp.where(mask, logits, -jnp.inf), axis=1)


def _columns(table: jax.Array) -> jax.Array:
    """Give the columns of ``(k, r)``, each as ``(k, 1)``."""
    return table.T[..., None]


def _squares(
    places: Sequence[jax.Array], means: jax.Array, precisions: jax.Array
) -> list[jax.Array]:
    # One axis at a time: a (k, P, r) table of differences would be r times as large.
    return [
        jnp.square(place - mean) * precision
        for place, mean, precision in zip(
            places, _columns(means), _columns(precisions), strict=True
        )
    ]


def check_points(points: Any, rank: int, mask: Any = None) -> None:
    """Raise unless points are integers of the rank of the tuples, and the mask fits them.

    Raises:
        ValueError: another shape or dtype.
    """
    checks.check_shape("points", points, (None, rank), "(P, r): one row per point, r as in means")
    checks.check_integers("points", points)
    if mask is not None:
        checks.check_shape("mask", mask, jnp.shape(points)[:1], "one flag per point")


def check_density(density: str) -> None:
    """Raise unless there is a density of this name.

    Raises:
        ValueError: an unknown name.
    """
    checks.check_choice("density", density, tuple(DENSITIES))


def coordinates(points: jax.Array, means: jax.Array) -> list[jax.Array]:
    """Give the points' coordinates, ``r`` arrays ``(P,)`` of whole floats in the means' dtype."""
    return list(jnp.asarray(points, means.dtype).T)


def _turn(
    axes: Sequence[jax.Array], means: jax.Array, period: tuple[int, ...] | None
) -> list[jax.Array]:
    """On circles, give every tuple the coordinates of the turn nearest to its mean, ``(k, P)``."""
    if period is None:
        return list(axes)
    return [
        place - length * jnp.round((place - mean) / length)
        for place, mean, length in zip(
            axes, _columns(jax.lax.stop_gradient(means)), period, strict=True
        )
    ]
