"""Points drawn from a tuple's own density, cut off at the ends of the index space.

Per axis, with ``c`` the share of a standard density between ``-z`` and ``z``, signed as ``z`` is::

    gaussian    c = erf(z / sqrt(2))               z = sqrt(2) erfinv(c)
    laplace     c = 1 - exp(-sqrt(2) |z|)          z = -log(1 - |c|) / sqrt(2)
    student_t   c = 2 / pi atan(z)                 z = tan(pi c / 2)

A draw is ``z`` of a ``c`` that is uniform between those of the two ends, half a cell beyond the
outermost cells. Counted from the middle, not from minus infinity: of a tuple far wider than the
space the ends are close to each other, and close to 0 floats are closest to each other too.
"""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from sparse_hyper_jax.ops.distances import Density
from sparse_hyper_jax.ops.inside import along
from sparse_hyper_jax.types import LEAST_VARIANCE

GlobalFrom = Literal["uniform", "density"]
GLOBAL_FROM = get_args(GlobalFrom)

ROOT = math.sqrt(2)


def own_places(
    uniform: jax.Array,
    means: jax.Array,
    variances: jax.Array,
    shape: tuple[int, ...],
    *,
    density: Density = "gaussian",
    wrap: bool = False,
) -> jax.Array:
    """Turn uniform draws into places around every mean, by the density of its tuple.

    Rounded, they are cells: all inside, but on circles, where they are to be taken round them. Of a
    ``student_t`` with several axes, which depend on each other, each is drawn by itself.

    Args:
        uniform: ``(k, count, r)`` between 0 and 1, or ``(1, count, r)`` for all tuples; of 32 bits
            whatever the means are, so that double precision draws the same.
        means: ``(k, r)`` in index units, float32 or wider.
        variances: ``(k, r)`` in squared index units.
        shape: the ``r`` lengths of the index space.
        density: name of the density.
        wrap: every axis is a circle.

    Returns:
        ``(k, count, r)`` floats in index units.
    """
    means, variances = jax.lax.stop_gradient((means, variances))
    # Beyond the ends the nearest cell counts, as it does for every other kind of points.
    last = along(shape, means) - 1
    means = means if wrap else jnp.clip(means, jnp.zeros_like(last), last)
    spreads = jnp.sqrt(jnp.maximum(variances.astype(means.dtype), LEAST_VARIANCE))
    low, high = -jnp.ones_like(means), jnp.ones_like(means)
    if not wrap:
        low = _central_share((-0.5 - means) / spreads, density)
        high = _central_share((last + 0.5 - means) / spreads, density)
    share = low[:, None] + uniform.astype(means.dtype) * (high - low)[:, None]
    most = 1 - float(jnp.finfo(means.dtype).eps)
    return means[:, None] + spreads[:, None] * _quantile(jnp.clip(share, -most, most), density)


def _central_share(z: jax.Array, density: Density) -> jax.Array:
    if density == "gaussian":
        return jax.lax.erf(z / ROOT)
    if density == "laplace":
        return -jnp.sign(z) * jnp.expm1(-ROOT * jnp.abs(z))
    return (2 / math.pi) * jnp.arctan(z)


def _quantile(share: jax.Array, density: Density) -> jax.Array:
    if density == "gaussian":
        return ROOT * jax.lax.erf_inv(share)
    if density == "laplace":
        return -jnp.sign(share) * jnp.log1p(-jnp.abs(share)) / ROOT
    return jnp.tan((math.pi / 2) * share)
