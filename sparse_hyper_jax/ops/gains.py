"""From the gain of a tap on every cell to scores that are fair: white, and without what is placed.

The gain of a tap on cell ``u`` is the gradient ``G[u]`` with respect to its absent weights. Its
bare norm misleads: neighbours of a good cell gain nearly as much as long as inputs are correlated
along the cells, loud channels outshout others, and an output that is badly off outweighs all. With
``D`` the cotangent of the outputs, ``S0`` the covariance of channels and ``r`` the autocorrelation
of inputs along the cells, the score is the decrease of the squared error by the best weights on
``u``, given the taps that are there (the step of orthogonal matching pursuit)::

    D = (D - mean) V,  V = leading eigenvectors of cov(D) / sqrt(eigenvalues)    whiten_cotangent
    G = inv(cholesky(S0)) G                                                      decorrelated_gains
    beta[u] = r[u - s] inv(r[s - s']),  c[u] = 1 - beta[u] . r[u - s]            residual_scores
    score[u] = ||G[u] - sum_s beta[u, s] G[s]||^2 / c[u]
    z = (score - median) / (1.48 median |score - median|)                        z_scores
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.ops.pursue import Taps, check_cells, enter_allowed, enter_taps, inside, taken
from sparse_hyper_jax.placement import gathered
from sparse_hyper_jax.precision import at_least_float32

NORMAL_MAD = 1.4826
"""Standard deviations of a normal distribution in one median absolute deviation."""


class Residual(NamedTuple):
    """Gains without what the placed taps explain.

    Attributes:
        gains: ``(*cells, f)``.
        share: ``(*cells)``, the share ``c`` of the inputs' variance that is left.
    """

    gains: jax.Array
    share: jax.Array


def whiten_cotangent(
    cotangent: jax.Array, *, count: int = 8, ridge: float | jax.Array = 0.01
) -> jax.Array:
    """Centre a cotangent and project it on its leading directions, each scaled to variance 1.

    With ``V`` the eigenvectors of the covariance of ``D`` and ``w`` their eigenvalues, this is
    ``(D - mean(D)) V / sqrt(w + ridge mean(w))`` for the ``count`` largest ``w``. Without the mean,
    an unsettled bias looks like a gain everywhere; with few directions the gains cost less.

    Args:
        cotangent: ``(..., O)``: gradient of the loss with respect to the outputs before their
            non-linearity; all leading axes count as samples.
        count: largest number of directions to keep, static.
        ridge: share of the mean eigenvalue that is added to each; positive, may be traced.

    Returns:
        float32 or wider, ``(..., min(count, O))``. The largest entry of every direction counts as
        positive. Gradients take mean and directions as constants.

    Raises:
        ValueError: a scalar, no samples or outputs, a count below 1, or a ridge that is not
            positive.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> cotangent = jnp.array([[1.0, 20.0], [-1.0, 20.0], [1.0, -20.0], [-1.0, -20.0]])
        >>> ops.whiten_cotangent(cotangent, count=1, ridge=1e-6).round(2).tolist()
        [[1.0], [1.0], [-1.0], [-1.0]]
    """
    # Samples of all devices have one mean and one covariance.
    cotangent = gathered(at_least_float32(as_array("cotangent", cotangent)))
    checks.require(
        cotangent.ndim >= 1 and cotangent.size > 0,
        f"cotangent of shape {cotangent.shape}",
        "(..., O) with at least one sample and one output",
        "pass the gradient with respect to the outputs",
    )
    count = min(checks.check_count("count", count, least=1), cotangent.shape[-1])
    checks.check_number("ridge", ridge, above=0)
    return _whitened(cotangent, jnp.asarray(ridge, cotangent.dtype), count)


@partial(jax.jit, static_argnames="count", inline=True)
def _whitened(cotangent: jax.Array, ridge: jax.Array, count: int) -> jax.Array:
    """See :func:`whiten_cotangent`."""
    samples = cotangent.reshape(-1, cotangent.shape[-1])
    mean = samples.mean(axis=0, keepdims=True)
    centred = jax.lax.stop_gradient(samples - mean)
    covariance = centred.T @ centred / jnp.asarray(len(samples), centred.dtype)
    values, vectors = jnp.linalg.eigh(covariance)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    floor = ridge * jnp.trace(covariance) / covariance.shape[0]
    scale = jax.lax.rsqrt(_at_least_tiny(jnp.maximum(values, 0) + floor))
    sign = jnp.where(vectors.max(axis=0) >= -vectors.min(axis=0), scale, -scale)
    white = (samples - jax.lax.stop_gradient(mean)) @ (vectors * sign[None])
    return white.reshape(*cotangent.shape[:-1], count)


def decorrelated_gains(
    gains: jax.Array, covariance: jax.Array, *, ridge: float | jax.Array = 1e-3
) -> jax.Array:
    """Take from gains what is due to loud and correlated input channels.

    With ``S = covariance + ridge mean(diag(covariance)) I`` and its Cholesky factor ``F``, this is
    ``inv(F) G[u]`` on every cell: the gains of channels of variance 1 without correlation.

    Args:
        gains: ``(*cells, C, m)``: for every cell the gradient with respect to the weights from
            ``C`` inputs to ``m`` outputs, or whitened directions of them.
        covariance: ``(C, C)`` of the input channels: symmetric, positive semi-definite.
        ridge: share of the mean variance that is added to each; positive, may be traced.

    Returns:
        float32 or wider, the shape of ``gains``.

    Raises:
        ValueError: shapes that do not agree, or a ridge that is not positive.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> gains = jnp.array([[[3.0], [0.4]]])  # one cell, two channels, one ten times as loud
        >>> covariance = jnp.array([[100.0, 0.0], [0.0, 1.0]])
        >>> print(np.round(ops.decorrelated_gains(gains, covariance), 1).ravel())
        [0.3 0.4]
    """
    gains = at_least_float32(as_array("gains", gains))
    checks.require(
        gains.ndim >= 2,
        f"gains of shape {gains.shape}",
        "(*cells, C, m), where C is the number of input channels",
        "give gains an axis of channels and one of outputs",
    )
    covariance = at_least_float32(as_array("covariance", covariance))
    channels = gains.shape[-2]
    checks.check_shape("covariance", covariance, (channels, channels), "(C, C) as in gains")
    checks.check_number("ridge", ridge, above=0)
    dtype = jnp.promote_types(gains.dtype, covariance.dtype)
    ridge = jnp.asarray(ridge, dtype)
    return _decorrelated(gains.astype(dtype), covariance.astype(dtype), ridge)


@partial(jax.jit, inline=True)
def _decorrelated(gains: jax.Array, covariance: jax.Array, ridge: jax.Array) -> jax.Array:
    """See :func:`decorrelated_gains`."""
    channels, dtype = gains.shape[-2], gains.dtype
    added = _at_least_tiny(ridge * jnp.trace(covariance) / channels)
    factor = jnp.linalg.cholesky(covariance + added * jnp.eye(channels, dtype=dtype))
    columns = jnp.moveaxis(gains, -2, 0)
    flat = solve_triangular(factor, columns.reshape(channels, -1), lower=True)
    return jnp.moveaxis(flat.reshape(columns.shape), 0, -2)


def residual_scores(
    gains: jax.Array,
    taps: Taps,
    *,
    autocorrelation: jax.Array | None = None,
    ridge: float | jax.Array = 1e-3,
    floor: float | jax.Array = 0.05,
) -> jax.Array:
    """Score every cell by what a tap there would gain beyond the taps that are placed.

    With ``r`` the autocorrelation and ``s, s'`` the placed taps,
    ``beta[u] = r[u - s] inv(r[s - s'] + ridge I)`` predicts what cell ``u`` reads from what the
    taps read, ``c[u] = max(1 - beta[u] . r[u - s], floor)`` is the share it does not predict, and
    the score is ``||G[u] - sum_s beta[u, s] G[s]||^2 / c[u]``.

    Args:
        gains: ``(*cells, ...)``: one gain, or an array of gains, for every cell of an index space
            of rank ``r``.
        taps: ``k`` slots; those that are empty or outside of the cells count for nothing.
        autocorrelation: of the inputs, by difference of cells; it is scaled to 1 at difference 0.
            An axis of the length ``n`` of the cells is read at the absolute difference, one of
            ``2n - 1`` at the difference itself, with 0 in the middle. None for white inputs.
        ridge: what is added to the autocorrelation of taps at 0; positive, may be traced.
        floor: least share; positive, may be traced. Divides the noise of cells beside taps.

    Returns:
        float32 or wider, ``(*cells)``; -inf on taps.

    Raises:
        ValueError: shapes that do not agree, or a ridge or floor that is not positive.

    Reference: Pati, Rezaiifar and Krishnaprasad 1993, orthogonal matching pursuit.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> gains = jnp.array([0.0, 20.0, 10.0, 5.0, 8.0])  # of taps on 1 and 4
        >>> correlation = jnp.array([1.0, 0.5, 0.25, 0.125, 0.0625])
        >>> taps = ops.pursue(gains, ops.empty_taps(2))
        >>> print(ops.residual_scores(gains, taps, autocorrelation=correlation).round())
        [133. -inf   0.   0.  31.]
    """
    gains, taps, correlation = enter_gains(gains, taps, autocorrelation)
    checks.check_number("ridge", ridge, above=0)
    checks.check_number("floor", floor, above=0)
    return scores_of(residual(gains, taps, correlation, ridge, floor), taps)


def z_scores(scores: jax.Array, *, allowed: jax.Array | None = None) -> jax.Array:
    """Measure by how many robust standard deviations scores stand out from all the others.

    ``z = (score - median) / (1.4826 median |score - median|)``, where medians are taken over the
    allowed cells that have a finite score.

    Args:
        scores: of any shape; infinite and NaN ones are left out of the medians.
        allowed: bool, the shape of ``scores``; None allows all.

    Returns:
        float32 or wider, the shape of ``scores``. Where more than half of the scores are equal,
        those are 0 and all others infinite. NaN for scores of NaN, and where no cell is left.

    Raises:
        ValueError: shapes that do not agree, or no scores.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> print(ops.z_scores(jnp.array([1.0, 2.0, 3.0, 4.0, 100.0])).round())
        [-1. -1.  0.  1. 65.]
    """
    scores = at_least_float32(as_array("scores", scores))
    checks.require(
        scores.size > 0, f"scores of shape {scores.shape}", "at least one", "pass some scores"
    )
    return standing_out(scores, enter_allowed(allowed, scores.shape))


# Outside of jit one program for each of these, not one for every operation.
@partial(jax.jit, inline=True)
def standing_out(scores: jax.Array, allowed: jax.Array) -> jax.Array:
    """See :func:`z_scores`."""
    counted = allowed & jnp.isfinite(scores)
    median = jnp.nanmedian(jnp.where(counted, scores, jnp.nan))
    finite = jnp.where(jnp.isfinite(scores), scores, median)
    deviation = NORMAL_MAD * jnp.nanmedian(jnp.where(counted, jnp.abs(finite - median), jnp.nan))
    # Divided where it may be; the outer selection leaves no NaN in gradients.
    spread = deviation > jnp.finfo(scores.dtype).tiny
    ratio = (finite - median) / jnp.where(spread, deviation, 1)
    flat = jnp.where(finite > median, jnp.inf, jnp.where(finite < median, -jnp.inf, 0))
    z = jnp.where(spread, ratio, flat)
    z = jnp.where(jnp.isnan(median), jnp.nan, z)
    return jnp.where(jnp.isfinite(scores), z, scores)


def residual(
    gains: jax.Array,
    taps: Taps,
    correlation: jax.Array | None,
    ridge: float | jax.Array,
    floor: float | jax.Array,
) -> Residual:
    """Take from gains ``(*cells, f)`` what the taps explain; see :func:`residual_scores`."""
    # Floats before they are arguments of a program, which would cut a wide integer.
    ridge, floor = (jnp.asarray(number, gains.dtype) for number in (ridge, floor))
    return _residual(gains, taps, correlation, ridge, floor)


@partial(jax.jit, inline=True)
def _residual(
    gains: jax.Array,
    taps: Taps,
    correlation: jax.Array | None,
    ridge: jax.Array,
    floor: jax.Array,
) -> Residual:
    """See :func:`residual`."""
    cells = gains.shape[:-1]
    if correlation is None or len(taps.placed) == 0:
        return Residual(gains, jnp.ones(cells, gains.dtype))
    counts = taps.placed & inside(taps, cells)
    positions = jnp.where(counts[:, None], taps.positions, 0)
    axes = [
        jax.lax.broadcasted_iota(jnp.int32, cells, axis).reshape(-1) for axis in range(len(cells))
    ]
    places = jnp.stack(axes, axis=1)
    to_taps = jnp.where(counts[None], _between(correlation, places, positions, cells), 0)
    both = counts[:, None] & counts[None]
    among = jnp.where(both, _between(correlation, positions, positions, cells), 0)
    # An empty slot is a tap without correlation to anything.
    diagonal = jnp.where(counts, ridge, 1)
    beta = jnp.linalg.solve(among + jnp.diag(diagonal), to_taps.T).T
    share = jnp.maximum(1 - (beta * to_taps).sum(axis=1), floor)
    flat = gains.reshape(-1, gains.shape[-1])
    at_taps = jnp.where(counts[:, None], flat[_flat(positions, cells)], 0)
    return Residual((flat - beta @ at_taps).reshape(gains.shape), share.reshape(cells))


@partial(jax.jit, inline=True)
def scores_of(left: Residual, taps: Taps) -> jax.Array:
    """Give scores ``(*cells)``, -inf on taps."""
    scores = (left.gains**2).sum(axis=-1) / left.share
    return jnp.where(taken(taps, left.share.shape), -jnp.inf, scores)


def enter_gains(
    gains: jax.Array, taps: Taps, autocorrelation: jax.Array | None, *, name: str = "gains"
) -> tuple[jax.Array, Taps, jax.Array | None]:
    """Check what comes in; give gains ``(*cells, f)`` and the correlation in one dtype."""
    taps = enter_taps(taps)
    gains = at_least_float32(as_array(name, gains))
    check_cells(name, gains.shape, taps)
    cells = gains.shape[: taps.positions.shape[1]]
    gains = gains.reshape(*cells, math.prod(gains.shape[len(cells) :]))
    if autocorrelation is None:
        return gains, taps, None
    correlation = at_least_float32(as_array("autocorrelation", autocorrelation))
    checks.require(
        len(correlation.shape) == len(cells)
        and all(have in (n, 2 * n - 1) for have, n in zip(correlation.shape, cells, strict=True)),
        f"autocorrelation of shape {correlation.shape} for cells {cells}",
        "along each axis the length n of the cells, or 2n - 1",
        "pass the autocorrelation by absolute difference, or by difference with 0 in the middle",
    )
    dtype = jnp.promote_types(gains.dtype, correlation.dtype)
    gains, correlation = gains.astype(dtype), correlation.astype(dtype)
    zero = tuple(
        0 if have == n else n - 1 for have, n in zip(correlation.shape, cells, strict=True)
    )
    at_zero = correlation[zero]
    positive = at_zero > jnp.finfo(dtype).tiny
    # Inputs that never vary correlate with nothing; NaN stays NaN.
    scaled = correlation / jnp.where(positive | jnp.isnan(at_zero), at_zero, 1)
    return gains, taps, scaled


def _between(
    correlation: jax.Array, ones: jax.Array, others: jax.Array, cells: tuple[int, ...]
) -> jax.Array:
    """Read the correlation ``(n, k)`` between positions ``(n, r)`` and ``(k, r)``."""
    difference = ones[:, None] - others[None]
    where = [
        jnp.abs(difference[..., axis]) if length == n else difference[..., axis] + (n - 1)
        for axis, (length, n) in enumerate(zip(correlation.shape, cells, strict=True))
    ]
    return correlation[tuple(where)]


def _flat(positions: jax.Array, cells: tuple[int, ...]) -> jax.Array:
    """Number the cells ``(k,)`` of positions ``(k, r)``."""
    strides = jnp.array([math.prod(cells[axis + 1 :]) for axis in range(len(cells))], jnp.int32)
    return (positions * strides[None]).sum(axis=1)


def _at_least_tiny(number: jax.Array) -> jax.Array:
    """Keep a divisor off 0, where all inputs are 0; NaN stays NaN."""
    return jnp.maximum(number, jnp.finfo(number.dtype).tiny)
