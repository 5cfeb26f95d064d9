"""Score, place, score again: what one probe does with the gains of all cells.

A second tap of the same probe must not land beside the first one on what that one explains
already, so cells are scored anew after every tap. When to stop is asked in two ways:
``pursue_gains`` places only what stands out from the other cells, ``pursue_halves`` only what a
second half of the data confirms.
"""

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_same_shape
from sparse_hyper_jax.ops.gains import (
    Residual,
    decorrelated_gains,
    enter_gains,
    residual,
    scores_of,
    standing_out,
)
from sparse_hyper_jax.ops.pursue import Taps, enter_allowed, place, taken


def pursue_gains(
    gains: jax.Array,
    taps: Taps,
    count: int = 1,
    *,
    autocorrelation: jax.Array | None = None,
    covariance: jax.Array | None = None,
    apart: int = 0,
    allowed: jax.Array | None = None,
    min_z: float | jax.Array | None = 5.0,
    ridge: float | jax.Array = 1e-3,
    floor: float | jax.Array = 0.05,
) -> Taps:
    """Place taps where gains are largest beyond what the placed ones explain, one after another.

    Each tap is :func:`pursue` of :func:`residual_scores`, which are computed again after it. With
    ``min_z`` it is placed only if its score stands out from those of all open cells by more, in
    the units of :func:`z_scores`: a number of taps that the data choose, but no calibrated test,
    as scores are no normal numbers. For that see :func:`pursue_halves`.

    Args:
        gains: ``(*cells, ...)``, the gradient with respect to the weights of an absent tap on
            every cell; best with the cotangent through :func:`whiten_cotangent`.
        taps: ``k`` slots.
        count: largest number of taps to place, static.
        autocorrelation: see :func:`residual_scores`.
        covariance: ``(C, C)``; gains ``(*cells, C, m)`` first go through
            :func:`decorrelated_gains`. None leaves them as they are.
        apart: see :func:`pursue`.
        allowed: see :func:`pursue`.
        min_z: what z has to exceed; None places ``count`` taps whatever they gain. May be traced.
        ridge: see :func:`residual_scores`.
        floor: see there.

    Returns:
        the taps, with up to ``count`` more of them placed.

    Raises:
        ValueError: as those functions.

    Reference: Pati, Rezaiifar and Krishnaprasad 1993, with a network as the least squares.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> lags = np.arange(200)  # true taps on 20 and 40; the inputs are correlated
        >>> gain = 2 * 0.9 ** abs(lags - 20) + 0.9 ** abs(lags - 40)
        >>> gains = gain[:, None] + 0.1 * np.random.default_rng(0).normal(size=(200, 32))
        >>> taps = ops.pursue_gains(gains, ops.empty_taps(4), 2, autocorrelation=0.9**lags)
        >>> taps.positions[taps.placed].ravel().tolist()
        [20, 40]
    """
    if covariance is not None:
        gains = decorrelated_gains(gains, covariance)
    flat, taps, correlation = enter_gains(gains, taps, autocorrelation)
    count, apart = checks.check_count("count", count), checks.check_count("apart", apart)
    allowed = enter_allowed(allowed, flat.shape[:-1])
    _check_numbers(ridge, floor)
    if min_z is not None:
        checks.check_number("min_z", min_z)

    for _ in range(min(count, len(taps.placed))):
        scores = scores_of(residual(flat, taps, correlation, ridge, floor), taps)
        opened = allowed & ~taken(taps, scores.shape, apart)
        if min_z is not None:
            opened &= standing_out(scores, opened) > jnp.asarray(min_z, scores.dtype)
        taps = place(jnp.where(opened, scores, -jnp.inf), taps, 1, apart)
    return taps


def split_half_p_values(
    first: jax.Array,
    second: jax.Array,
    taps: Taps,
    *,
    autocorrelation: jax.Array | None = None,
    counts: jax.Array | None = None,
    apart: int = 0,
    allowed: jax.Array | None = None,
    ridge: float | jax.Array = 1e-3,
    floor: float | jax.Array = 0.05,
) -> jax.Array:
    """Ask of every cell how likely a second half of the data agrees as much by chance.

    The gains ``A`` and ``B`` of two halves, both without what the taps explain, agree by
    ``t[u] = A[u] . B[u] / (||A[u]|| sqrt(c[u]))``: what ``B`` gains in the direction that ``A``
    proposes. On a cell without gain ``t`` is noise like that of all the others, so the p-value is
    the share of open cells with a ``t`` at least as large. It holds for ONE cell that was chosen
    without looking at ``second``: of all cells, a share of ``p`` has a p-value up to ``p``.

    Args:
        first: ``(*cells, ...)``, gains of one half, whitened and decorrelated: the cotangent of
            both halves together, so that they have the same directions.
        second: the same for the other half.
        taps: ``k`` slots.
        autocorrelation: see :func:`residual_scores`.
        counts: positive ``(*cells)``: over how many inputs each gain is summed, in any unit, where
            padding takes some from far cells: for lags ``u`` of ``T`` steps it is ``T - u``. Gains
            are divided by its root, which makes noise alike. None for as many everywhere.
        apart: see :func:`pursue`.
        allowed: see there.
        ridge: see :func:`residual_scores`.
        floor: see there.

    Returns:
        float32 or wider, ``(*cells)``: from one over the number of open cells to 1; 1 where a cell
        is closed, NaN where a gain is.

    Raises:
        ValueError: shapes that do not agree, or as those functions.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> halves = np.random.default_rng(0).normal(size=(2, 100))
        >>> halves[:, 7] += 9
        >>> print(ops.split_half_p_values(*halves, ops.empty_taps(1))[7])
        0.01
    """
    first, second, taps, correlation = _enter_halves(first, second, taps, autocorrelation, counts)
    apart = checks.check_count("apart", apart)
    allowed = enter_allowed(allowed, first.shape[:-1])
    _check_numbers(ridge, floor)
    opened = allowed & ~taken(taps, first.shape[:-1], apart)
    one, other = (residual(half, taps, correlation, ridge, floor) for half in (first, second))
    agreement = _agreement(one, other)
    counted = opened & ~jnp.isnan(agreement)
    below = _count_below(jnp.where(counted, agreement, -jnp.inf).reshape(-1))
    shares = (agreement.size - below.reshape(agreement.shape)) / jnp.maximum(counted.sum(), 1)
    values = jnp.where(opened, shares.astype(agreement.dtype), 1)
    return jnp.where(jnp.isnan(agreement), jnp.nan, values)


def pursue_halves(
    first: jax.Array,
    second: jax.Array,
    taps: Taps,
    count: int = 1,
    *,
    false_rate: float | jax.Array = 0.05,
    autocorrelation: jax.Array | None = None,
    counts: jax.Array | None = None,
    apart: int = 0,
    allowed: jax.Array | None = None,
    ridge: float | jax.Array = 1e-3,
    floor: float | jax.Array = 0.05,
) -> Taps:
    """Place taps that one half of the data proposes and the other half confirms.

    The open cell of the largest residual score of ``first`` is placed if its p-value in ``second``
    (:func:`split_half_p_values`) is at most ``false_rate``, and the next one is scored; at the
    first that is not confirmed, the probe ends. Where no cell has a gain, a probe places a tap with
    probability ``false_rate`` (a little less, as p-values are multiples of one over the number of
    cells); each further probe asks anew.

    It cannot place anything with fewer than ``1 / false_rate`` open cells. The rate holds if the
    halves are independent and noise is alike on all cells. So it is too high for halves that
    overlap, data that the model has been trained on till it knows them, long lags without
    ``counts``, and inputs with a trend; a period of the inputs is no noise, and confirms a lag that
    is one period off.

    Args:
        first: ``(*cells, ...)``, gains of the half that proposes; see
            :func:`split_half_p_values`.
        second: the same for the half that confirms.
        taps: ``k`` slots.
        count: largest number of taps to place, static.
        false_rate: from 0 to 1; may be traced.
        autocorrelation: see :func:`residual_scores`.
        counts: see :func:`split_half_p_values`.
        apart: see :func:`pursue`.
        allowed: see there.
        ridge: see :func:`residual_scores`.
        floor: see there.

    Returns:
        the taps, with up to ``count`` more of them placed.

    Raises:
        ValueError: shapes that do not agree, or as those functions.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> halves = np.random.default_rng(0).normal(size=(2, 100))
        >>> halves[:, [7, 30]] += 9
        >>> taps = ops.pursue_halves(*halves, ops.empty_taps(5), 5, false_rate=0.02)
        >>> sorted(taps.positions[taps.placed].ravel().tolist())
        [7, 30]
    """
    first, second, taps, correlation = _enter_halves(first, second, taps, autocorrelation, counts)
    count, apart = checks.check_count("count", count), checks.check_count("apart", apart)
    allowed = enter_allowed(allowed, first.shape[:-1])
    _check_numbers(ridge, floor)
    checks.check_number("false_rate", false_rate, at_least=0, at_most=1)

    for _ in range(min(count, len(taps.placed))):
        one, other = (residual(half, taps, correlation, ridge, floor) for half in (first, second))
        scores, agreement = scores_of(one, taps), _agreement(one, other)
        opened = allowed & ~taken(taps, scores.shape, apart)
        counted = opened & ~jnp.isnan(scores) & ~jnp.isnan(agreement)
        scores = jnp.where(counted, scores, -jnp.inf)
        best = jnp.argmax(scores)
        agreement = agreement.reshape(-1)
        # Itself in any case, should it be rounded otherwise where it is read.
        passed = (agreement >= agreement[best]) | (jnp.arange(len(agreement)) == best)
        passed = (counted.reshape(-1) & passed).sum().astype(scores.dtype)
        limit = jnp.asarray(false_rate, scores.dtype) * counted.sum().astype(scores.dtype)
        taps = place(jnp.where(passed <= limit, scores, -jnp.inf), taps, 1, apart)
    return taps


def _agreement(one: Residual, other: Residual) -> jax.Array:
    """Project the residual of one half on the direction of the other, in equal noise."""
    squares = (one.gains**2).sum(axis=-1) * one.share
    positive = ~(squares <= 0)  # NaN too, so that it comes out
    inverse = jnp.where(positive, jax.lax.rsqrt(jnp.where(positive, squares, 1)), 0)
    return (one.gains * other.gains).sum(axis=-1) * inverse


def _count_below(numbers: jax.Array) -> jax.Array:
    """Count for each of ``(n,)`` numbers those that are smaller."""
    order = jnp.argsort(numbers)
    ascending = numbers[order]
    places = jnp.arange(len(numbers))
    begins = jnp.concatenate([jnp.ones(1, bool), ascending[1:] > ascending[:-1]])
    return jax.lax.cummax(jnp.where(begins, places, 0))[jnp.argsort(order)]


def _enter_halves(
    first: jax.Array,
    second: jax.Array,
    taps: Taps,
    autocorrelation: jax.Array | None,
    counts: jax.Array | None,
) -> tuple[jax.Array, jax.Array, Taps, jax.Array | None]:
    """Check what comes in; give both gains ``(*cells, f)`` in equal noise, and the correlation."""
    first, second = as_array("first", first), as_array("second", second)
    check_same_shape(first=first, second=second)
    one, taps, correlation = enter_gains(first, taps, autocorrelation, name="first")
    other, _, _ = enter_gains(second, taps, None, name="second")
    dtype = jnp.promote_types(one.dtype, other.dtype)
    if correlation is not None:
        correlation = correlation.astype(dtype)
    one, other = one.astype(dtype), other.astype(dtype)
    if counts is not None:
        counts = as_array("counts", counts).astype(dtype)
        checks.check_shape("counts", counts, one.shape[:-1], "one positive number per cell")
        inverse = jax.lax.rsqrt(counts)[..., None]
        one, other = one * inverse, other * inverse
    return one, other, taps, correlation


def _check_numbers(ridge: float | jax.Array, floor: float | jax.Array) -> None:
    checks.check_number("ridge", ridge, above=0)
    checks.check_number("floor", floor, above=0)
