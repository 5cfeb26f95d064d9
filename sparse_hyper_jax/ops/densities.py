"""Integer tuples to proportions: the share of each tuple's value that each point receives."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.ops.distances import DENSITIES, Density, columns, coordinates, steps_from
from sparse_hyper_jax.ops.entrance import enter_mask, enter_points
from sparse_hyper_jax.ops.inside import check_in_range, is_inside
from sparse_hyper_jax.ops.shares import share_values
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.types import LEAST_VARIANCE, ContinuousTuples


def log_densities(
    points: jax.Array,
    means: jax.Array,
    variances: jax.Array,
    *,
    density: Density = "gaussian",
    period: Sequence[int] | None = None,
    debug: bool = False,
) -> jax.Array:
    """Give the unnormalised log density of every tuple at every point.

    With ``z_c = (u_pc - mu_jc)^2 / s_jc`` per axis ``c`` of ``r``::

        gaussian    -1/2 sum_c z_c
        laplace     -sum_c sqrt(2 z_c)
        student_t   -(r + 1)/2 log(1 + sum_c z_c)          one degree of freedom (Cauchy)

    The last two fall off more slowly, so that a narrow tuple still feels distant points. Constant
    factors of the density are left out: they cancel in the proportions.

    Args:
        points: int ``(P, r)``. One with a number below 0, or on a circle one beyond its period, is
            outside of every index space: its log density is -inf, with slope 0.
        means: ``(k, r)`` in index units.
        variances: ``(k, r)`` in squared index units; below 1e-12 they count as 1e-12.
        density: ``"gaussian"``, ``"laplace"`` or ``"student_t"``.
        period: lengths of the axes if these are circles: distances go the shorter way round.
        debug: check by ``checkify`` that no point lies outside.

    Returns:
        ``(P, k)`` log densities, float32 or wider.

    Raises:
        ValueError: shapes that do not agree, or an unknown density.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> points, tuples = jnp.array([[0], [3], [4]]), ([[1.0]], [[0.5]])
        >>> print(np.asarray(ops.log_densities(points, *tuples)).round(2).T)
        [[-1. -4. -9.]]
        >>> print(np.asarray(ops.log_densities(points, *tuples, density="student_t")).round(2).T)
        [[-1.1  -2.2  -2.94]]
    """
    means, variances = _enter(means, variances)
    check_density(density)
    points, inside, period = places_of(points, means.shape[1], period, debug=debug)
    origins = jnp.round(jax.lax.stop_gradient(means))
    offsets = columns(origins - means)
    axes = [axis[None] for axis in coordinates(points, means)]
    steps = steps_from(axes, columns(origins), offsets, period)
    widths = columns(jnp.maximum(variances, LEAST_VARIANCE))
    return jnp.where(inside[:, None], DENSITIES[density](steps, offsets, widths).T, -jnp.inf)


def proportions(
    points: jax.Array,
    mask: jax.Array,
    means: jax.Array,
    variances: jax.Array,
    *,
    density: Density = "gaussian",
    period: Sequence[int] | None = None,
    debug: bool = False,
) -> jax.Array:
    """Share out every tuple among the kept points, by density.

    ``pi_pj = mask_p d_pj / sum_q mask_q d_qj``, as a softmax over points in log space, so that it
    is finite for any variance; a dropped point receives exactly 0.

    Args:
        points: int ``(P, r)``; one outside is dropped, see :func:`log_densities`.
        mask: bool ``(P,)``, the kept mask.
        means: ``(k, r)`` in index units.
        variances: ``(k, r)`` in squared index units.
        density: see :func:`log_densities`.
        period: see :func:`log_densities`.
        debug: see :func:`log_densities`.

    Returns:
        ``(P, k)``; every column sums to 1 over the points, or is 0 if none of these is kept.

    Raises:
        ValueError: shapes that do not agree.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> points = jnp.array([[0], [1], [1], [2]])
        >>> mask = ops.first_occurrence(points, (3,))
        >>> shares = ops.proportions(points, mask, means=[[1.0]], variances=[[1.0]])
        >>> print(np.asarray(shares).round(2).T)
        [[0.27 0.45 0.   0.27]]
    """
    means, variances = _enter(means, variances)
    check_density(density)
    points, inside, period = places_of(points, means.shape[1], period, debug=debug)
    kept = enter_mask(mask, points) & inside
    tuples = ContinuousTuples(means, variances, jnp.ones(means.shape[0], means.dtype))
    axes = coordinates(points, means)
    shares = share_values(axes, some_of(kept), tuples, density=density, period=period)
    return jnp.where(kept[:, None], shares.T, 0)


def places_of(
    points: jax.Array, rank: int, period: Sequence[int] | None, *, debug: bool
) -> tuple[jax.Array, jax.Array, tuple[int, ...] | None]:
    """Check points, and tell which of them can lie in an index space.

    Args:
        points: int ``(P, r)``.
        rank: ``r``.
        period: see :func:`log_densities`.
        debug: see there.

    Returns:
        the points, bool ``(P,)``, and the period.

    Raises:
        ValueError: another shape or dtype, or a period of another length.
    """
    points = enter_points(points, rank)
    if period is not None:
        period = checks.check_index_shape("period", period)
        checks.require(
            len(period) == rank,
            f"period={period}",
            f"length {rank}, one per axis",
            "give period one length per column of means",
        )
    shape = (checks.INT32_CELLS - 1,) * rank if period is None else period
    if checks.check_flag("debug", debug):
        check_in_range(points, shape)
    return points, is_inside(points, shape), period


def some_of(kept: jax.Array) -> jax.Array:
    """Keep all where none is kept: a softmax over nothing would divide 0 by 0."""
    return kept | ~jnp.any(kept)


def check_density(density: Density) -> None:
    """Raise unless there is a density of this name.

    Raises:
        ValueError: an unknown name.
    """
    checks.check_choice("density", density, tuple(DENSITIES))


def _enter(means: jax.Array, variances: jax.Array) -> tuple[jax.Array, jax.Array]:
    means, variances = as_array("means", means), as_array("variances", variances)
    checks.check_tuples(means, variances)
    dtype = wide_dtype(means, variances)
    return means.astype(dtype), variances.astype(dtype)
