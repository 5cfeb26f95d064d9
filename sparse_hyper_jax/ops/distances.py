"""Distances between points and means, and log densities of them, axis by axis.

Distances are measured from an origin, a whole number near the mean ``mu``. A point ``u`` then has
the step ``d = u - o``, a whole number that no rounding touches, and all points of a tuple have one
offset ``e = o - mu``, so that ``u - mu = d + e``. On a circle it is the step that is wrapped.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp

Period = tuple[int, ...] | None
"""Lengths of the axes if these are circles."""

Tables = Sequence[jax.Array]
"""One array per axis."""


def columns(table: jax.Array) -> list[jax.Array]:
    """Give the columns of ``(k, r)``, each as ``(k, 1)``."""
    return [table[:, axis, None] for axis in range(table.shape[1])]


def coordinates(points: jax.Array, means: jax.Array) -> list[jax.Array]:
    """Give the points' coordinates, ``r`` arrays ``(P,)`` of whole floats in the means' dtype."""
    return list(points.astype(means.dtype).T)


def steps_from(
    places: Sequence[jax.Array],
    origins: Sequence[jax.Array],
    offsets: Sequence[jax.Array],
    period: Period,
) -> list[jax.Array]:
    """Give how far every point lies from the origin, ``(k, P)`` whole floats per axis.

    Args:
        places: ``(1, P)`` or ``(k, P)`` whole floats per axis.
        origins: whole floats ``(k, 1)`` per axis.
        offsets: origins minus means, ``(k, 1)`` per axis.
        period: on circles the step leads to the turn of the point that is nearest to the mean.
    """
    steps = [place - origin for place, origin in zip(places, origins, strict=True)]
    if period is None:
        return steps
    return [
        step - size * jnp.round((step + jax.lax.stop_gradient(offset)) * (1 / size))
        for step, offset, size in zip(steps, offsets, period, strict=True)
    ]


def square_sum(
    steps: Sequence[jax.Array], offsets: Sequence[jax.Array], variances: Sequence[jax.Array]
) -> jax.Array:
    """Sum the squared distances in units of the variances over the axes: ``(k, P)``."""
    # One axis at a time: a (k, P, r) table of differences would be r times as large. Beyond 1e18,
    # as with a mean far outside of every index space, squares and slopes would be infinite.
    squares = [
        jnp.square(_limited(_limited(step + offset) * jax.lax.rsqrt(variance)))
        for step, offset, variance in zip(steps, offsets, variances, strict=True)
    ]
    return sum(squares[1:], squares[0])


def _limited(number: jax.Array) -> jax.Array:
    return jnp.clip(number, -1e18, 1e18)


def scale_of(variance: jax.Array) -> jax.Array:
    """Give the slope of a log density of Laplace: ``sqrt(2 / s)``."""
    return 2**0.5 * jax.lax.rsqrt(variance)


def _gaussian(steps: Tables, offsets: Tables, variances: Tables) -> jax.Array:
    return -0.5 * square_sum(steps, offsets, variances)


def _laplace(steps: Tables, offsets: Tables, variances: Tables) -> jax.Array:
    parts = [
        jnp.abs(step + offset) * scale_of(variance)
        for step, offset, variance in zip(steps, offsets, variances, strict=True)
    ]
    return -sum(parts[1:], parts[0])


def _student_t(steps: Tables, offsets: Tables, variances: Tables) -> jax.Array:
    return -0.5 * (len(steps) + 1) * jnp.log1p(square_sum(steps, offsets, variances))


Density = Literal["gaussian", "laplace", "student_t"]
"""Names of the shapes of a tuple."""

DENSITIES: dict[Density, Callable[[Tables, Tables, Tables], jax.Array]] = {
    "gaussian": _gaussian,
    "laplace": _laplace,
    "student_t": _student_t,
}
"""Log densities, up to a constant, as functions of steps, offsets and variances per axis.

Example:
    >>> from sparse_hyper_jax import ops
    >>> sorted(ops.DENSITIES)
    ['gaussian', 'laplace', 'student_t']
"""
