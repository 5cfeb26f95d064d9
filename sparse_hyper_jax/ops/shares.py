"""The share of every tuple's value that each point receives: a softmax over log densities.

A common factor of the densities of a tuple cancels in its shares. It goes before anything else, in
the form of the density at the origin: of two large numbers, each of them rounded, little would be
left.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax.ops.distances import (
    DENSITIES,
    Density,
    Period,
    Tables,
    columns,
    scale_of,
    steps_from,
)
from sparse_hyper_jax.types import LEAST_VARIANCE, ContinuousTuples


def share_values(
    axes: Sequence[jax.Array],
    mask: jax.Array,
    tuples: ContinuousTuples,
    *,
    density: Density = "gaussian",
    period: Period = None,
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
    origins = jnp.round(jax.lax.stop_gradient(tuples.means))
    if period is None:
        low, high = (jnp.stack([end(axis) for axis in axes])[None] for end in (jnp.min, jnp.max))
        origins = jnp.clip(origins, low, high)
    options = {"density": density, "period": period, "summed": summed}
    return share_among([axis[None] for axis in axes], mask[None], tuples, origins, **options)


@partial(jax.jit, static_argnames=("density", "period", "summed"), inline=True)
def share_among(
    places: Sequence[jax.Array],
    mask: jax.Array,
    tuples: ContinuousTuples,
    origins: jax.Array,
    *,
    density: Density,
    period: Period = None,
    summed: bool = False,
) -> jax.Array:
    """Share out every tuple's value among the points that it sees, by density.

    Args:
        places: the points' coordinates as whole floats, one array per axis: ``(1, P)`` where all
            tuples see the same points, ``(k, P)`` where each has its own.
        mask: bool ``(1, P)`` or ``(k, P)``, at least one true for every tuple.
        tuples: ``k`` tuples, float32 or wider.
        origins: ``(k, r)`` whole floats near the means, in the range of the points.
        density: name of the density.
        period: lengths of the axes if these are circles.
        summed: give the sum over the tuples.

    Returns:
        ``(k, P)``, of which row ``j`` sums to the value of tuple ``j``; ``(P,)`` if summed.
    """
    means, variances, values = tuples
    variances = jnp.maximum(variances, LEAST_VARIANCE)
    if density == "gaussian":
        static = (summed, period)
        return _share_gaussian(static, tuple(places), mask, means, 1 / variances, values, origins)
    offsets = columns(origins - means)
    steps = steps_from(places, columns(origins), offsets, period)
    log_density = _laplace if density == "laplace" else DENSITIES[density]
    logits = log_density(steps, offsets, columns(variances))
    return _weigh(summed, values, _masked_softmax(logits, mask))


def _laplace(steps: Tables, offsets: Tables, variances: Tables) -> jax.Array:
    """Give the log density less that at the origin."""
    parts = [
        scale_of(variance) * _excess(step, offset)
        for step, offset, variance in zip(steps, offsets, variances, strict=True)
    ]
    return -sum(parts[1:], parts[0])


@jax.custom_jvp
def _excess(step: jax.Array, offset: jax.Array) -> jax.Array:
    """Give ``|d + e| - |e|`` with the rounding of one sum, not with those of two large numbers."""
    distance = step + offset
    # From one side, both count with the same sign and the offset cancels; it is added otherwise.
    same_side = distance * offset >= 0
    sign = jnp.sign(jnp.where(distance == 0, offset, distance))
    return sign * jnp.where(same_side, step, step + 2 * offset)


@_excess.defjvp
def _excess_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    step, offset = primals
    by_step, by_offset = tangents
    # Signs first: of what one side adds, and the other takes away, nothing would be left.
    sign, change = jnp.sign(step + offset), jnp.sign(step + offset) - jnp.sign(offset)
    return _excess(step, offset), sign * by_step + change * by_offset


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _share_gaussian(
    static: tuple[bool, Period],
    places: tuple[jax.Array, ...],
    mask: jax.Array,
    *tuples: jax.Array,
) -> jax.Array:
    summed, period = static
    means, precisions, values, origins = tuples
    steps, totals = _steps_and_totals(places, means, origins, period)
    return _weigh(summed, values, _gaussian_shares(steps, totals, mask, precisions))


@_share_gaussian.defjvp
def _share_gaussian_jvp(
    static: tuple[bool, Period], primals: Any, tangents: Any
) -> tuple[jax.Array, jax.Array]:
    # The derivative in closed form: with logits l_pj, d = u - o and t = (u - mu) + (o - mu),
    # dl_pj = sum_c d t (-1/2 dprecision) + d precision dmu. Factors of a tuple stand apart from
    # those of the table, and the derivative backwards, its transpose, takes sums over one table,
    # once. A share of 0 comes before what may be too large for a float: their product is 0.
    summed, period = static
    places, mask, means, precisions, values, origins = primals
    *_, by_mean, by_precision, by_value, _ = tangents
    steps, totals = _steps_and_totals(places, means, origins, period)
    shares = _gaussian_shares(steps, totals, mask, precisions)
    slopes = columns(values[:, None] * precisions * by_mean)
    changes = columns(-0.5 * values[:, None] * by_precision)
    parts = [
        shares * step * slope + shares * step * total * change
        for step, total, slope, change in zip(steps, totals, slopes, changes, strict=True)
    ]
    weighted = sum(parts[1:], parts[0])
    change = _weigh(summed, by_value - jnp.sum(weighted, axis=1), shares)
    change += jnp.sum(weighted, axis=0) if summed else weighted
    return _weigh(summed, values, shares), change


def _steps_and_totals(
    places: Sequence[jax.Array], means: jax.Array, origins: jax.Array, period: Period
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Give ``d`` and ``(u - mu) + (o - mu) = d + 2 e`` per axis, each ``(k, P)``."""
    offsets = columns(origins - means)
    steps = steps_from(places, columns(origins), offsets, period)
    return steps, [step + 2 * offset for step, offset in zip(steps, offsets, strict=True)]


def _gaussian_shares(
    steps: Sequence[jax.Array],
    totals: Sequence[jax.Array],
    mask: jax.Array,
    precisions: jax.Array,
) -> jax.Array:
    # A common factor cancels in the softmax. It has to go before: at a variance of 1e-12 rounding
    # changes a log density by thousands, and where the compiler computes it twice, once for the
    # maximum and once for exp(), and rounds differently, exp(log density - maximum) overflows.
    # So squares count from that of the origin, (d + e)^2 - e^2 as d (d + 2 e): the first factor
    # holds whole numbers only, and the origin itself gets an exact 0 however the compiler rounds.
    squares = [
        step * total * precision
        for step, total, precision in zip(steps, totals, columns(precisions), strict=True)
    ]
    return _masked_softmax(-0.5 * sum(squares[1:], squares[0]), mask)


def _weigh(summed: bool, weights: jax.Array, shares: jax.Array) -> jax.Array:
    if summed:
        return jnp.matmul(weights, shares, precision=jax.lax.Precision.HIGHEST)
    return weights[:, None] * shares


def _masked_softmax(logits: jax.Array, mask: jax.Array) -> jax.Array:
    # -inf before the softmax, not 0 after it: a dropped point takes no part in the sum, and its
    # gradient is an exact 0 because the kept maximum keeps exp() away from NaN.
    return jax.nn.softmax(jnp.where(mask, logits, -jnp.inf), axis=1)
