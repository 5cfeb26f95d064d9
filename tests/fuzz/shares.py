"""The oracle of relaxation: shares of tuples among points, their slopes, and how exact they are.

All in float64, from numbers that float32 holds. How far a float32 may be off follows from the
numbers at hand: differences of coordinates are rounded, which a small variance magnifies, and what
comes of that in the softmax is bounded by intervals.
"""

from typing import NamedTuple

import numpy as np

from tests.fuzz.compare import EPS, LOST, Near

LEAST_VARIANCE = 1e-12
EXACT = 2.0**24 - 2
"""Beyond, a float32 mean may not tell its neighbours apart."""

VANISHED = 1e-37
"""Products of float32 below that may be 0, and what is multiplied by them then too."""


class Slope(NamedTuple):
    """Derivatives of logits, tables ``(k, P, r)``."""

    value: np.ndarray
    """From that at the origin on."""

    whole: np.ndarray
    """Sizes before that of the origin is taken off, which rounds."""

    faint: np.ndarray
    """What multiplies products that may have vanished: a variance comes last."""


class Shares(NamedTuple):
    """Shares ``(k, P)``, how far off they may be, and slopes of the logits."""

    values: np.ndarray
    off: np.ndarray
    by_mean: Slope
    by_variance: Slope


def first_occurrence(points):
    """Mark the first of equal rows."""
    _, first = np.unique(points, axis=0, return_index=True)
    mask = np.zeros(len(points), bool)
    mask[first] = True
    return mask


def distances(points, means, period=None):
    """Signed distances ``(k, P, r)`` from means to points, the shorter way round on circles."""
    apart = points[None].astype(np.float64) - means[:, None]
    if period is None:
        return apart
    lengths = np.asarray(period, np.float64)
    return apart - lengths * np.round(apart / lengths)


def rounding(exact):
    """How far off a float32 is that comes of one or two exact operations."""
    return np.abs(np.float64(np.float32(exact)) - exact)


def log_densities(apart, variances, density):
    """Log densities ``(k, P)`` of distances, and terms per axis of the sums they are made of."""
    squares = apart**2 / np.maximum(variances, LEAST_VARIANCE)[:, None]
    if density == "gaussian":
        return -0.5 * squares.sum(-1)
    if density == "laplace":
        return -np.sqrt(2 * squares).sum(-1)
    return -0.5 * (squares.shape[-1] + 1) * np.log1p(squares.sum(-1))


def share(points, mask, means, variances, density="gaussian", period=None):  # noqa: PLR0917
    """Share out tuples among kept points, see :func:`sparse_hyper_jax.ops.proportions`."""
    apart = distances(points, means, period)
    whole = np.round(means)
    if period is None:
        whole = np.clip(whole, points.min(0), points.max(0))
    origin = (whole - means)[:, None]
    logits, wrong = _logits(apart, origin, variances, density)
    logits = np.where(mask, logits, -np.inf)
    top = logits.max(-1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(-1, keepdims=True)) + top
    logs = logits - total
    values = np.exp(logs)
    # The least and the largest that the share can be if every logit is off by so much.
    more, less = (
        np.log((values * np.exp(np.minimum(sign * wrong, 700))).sum(-1, keepdims=True))
        for sign in (1, -1)
    )
    high = np.exp(np.minimum(logs + wrong - less, 0))
    low = np.exp(logs - wrong - more)
    off = np.minimum(np.maximum(high - values, values - low), 1) + 8 * EPS * values
    loose = (np.abs(means).max(-1) > EXACT)[:, None] | ~np.isfinite(total)
    off = np.where(loose, np.inf, np.where(mask, off, 0))
    return Shares(values, off, *_slopes(apart, origin, variances, density))


def _logits(apart, origin, variances, density):
    """Logits from that of the origin on, and how far off each may be, ``(k, P)``."""
    safe = np.maximum(variances, LEAST_VARIANCE)[:, None]
    slip = rounding(apart) + rounding(origin)
    if density == "gaussian":
        step, both = apart - origin, apart + origin
        parts = step * both / safe / 2
        wrong = np.abs(step) * (slip + rounding(both)) / safe / 2 + 4 * EPS * np.abs(parts)
        return -parts.sum(-1), wrong.sum(-1)
    if density == "laplace":
        parts = np.sqrt(2 / safe) * (np.abs(apart) - np.abs(origin))
        wrong = np.sqrt(2 / safe) * slip + 4 * EPS * np.abs(parts)
        return -parts.sum(-1), wrong.sum(-1)
    logits = log_densities(apart, variances, density)
    squares = apart**2 / safe
    steep = (squares.shape[-1] + 1) / (1 + squares.sum(-1))
    wrong = steep * (np.abs(apart) * slip / safe + 2 * EPS * squares).sum(-1)
    return logits, wrong + 4 * EPS * (1 + np.abs(logits))


def _slopes(apart, origin, variances, density):
    """Slopes of logits by mean and by variance."""
    clear = (variances > LEAST_VARIANCE)[:, None]
    safe = np.maximum(variances, LEAST_VARIANCE)[:, None]
    near, none = np.broadcast_to(origin, apart.shape), np.zeros(apart.shape)
    if density == "gaussian":
        by_mean, by_variance = (apart - near) / safe, (apart**2 - near**2) / (2 * safe**2)
        wholes = none, none
    elif density == "laplace":
        signs, lengths = np.sign(apart) - np.sign(near), np.abs(apart) - np.abs(near)
        by_mean, by_variance = np.sqrt(2 / safe) * signs, lengths / np.sqrt(2 * safe**3)
        wholes = np.sqrt(2 / safe) + none, np.abs(apart) / np.sqrt(2 * safe**3)
    else:
        total = 1 + (apart**2 / safe).sum(-1, keepdims=True)
        power = apart.shape[-1] + 1
        by_mean = power * apart / safe / total
        by_variance = power / 2 * (apart / safe) ** 2 / total
        wholes = np.abs(by_mean), np.abs(by_variance)
    faint = (np.abs(apart) + 1) / safe
    return (
        Slope(by_mean, wholes[0], faint),
        Slope(by_variance * clear, wholes[1] * clear, faint**2 * clear),
    )


def mixed(shares, values):
    """Give every point the sum of its shares of the values ``(k,)``: ``(P,)``."""
    sizes = np.abs(values)[:, None]
    off = (sizes * shares.off).sum(0) + EPS * (len(values) + 4) * (sizes * shares.values).sum(0)
    return Near(values @ shares.values, np.nan_to_num(off, nan=np.inf, posinf=np.inf) + LOST)


def slopes(shares, values, weights, wrong=0.0):
    """Derivatives of ``weights @ mixed``, for tuples in one context.

    Args:
        shares: of the tuples.
        values: ``(k,)``.
        weights: ``(P,)``, or ``(k, P)``.
        wrong: how far off these are themselves.

    Returns:
        means ``(k, r)``, variances ``(k, r)``, values ``(k,)``.
    """
    weights = np.broadcast_to(weights, shares.values.shape)
    mean = (shares.values * weights).sum(-1, keepdims=True)
    apart = weights - mean
    slip = (shares.off * np.abs(apart)).sum(-1, keepdims=True) + wrong
    size = np.abs(weights) + (shares.values * np.abs(weights)).sum(-1, keepdims=True)
    rounded = 16 * EPS * shares.values * size
    off = shares.off * np.abs(apart) + shares.values * slip + rounded
    peaked = shares.values.max(-1, keepdims=True, initial=0) == 1

    def one(slope):
        value = ((shares.values * apart)[..., None] * slope.value).sum(1)
        room = off[..., None] * np.abs(slope.value)
        room += np.where(peaked, 0, rounded)[..., None] * slope.whole
        room = np.nan_to_num(room.sum(1), nan=np.inf) + LOST
        # Whatever is multiplied first may vanish, also once the value has made it small.
        lost = VANISHED * (np.maximum(size, 1)[..., None] * slope.faint).sum(1)
        sizes = np.abs(values)[:, None]
        return Near(values[:, None] * value, sizes * room + np.maximum(sizes, 1) * lost + LOST)

    by_value = (slip + rounded.sum(-1, keepdims=True))[:, 0] + LOST
    by_value = Near(mean[:, 0], np.nan_to_num(by_value, nan=np.inf))
    return one(shares.by_mean), one(shares.by_variance), by_value


def halfway(points, means, period):
    """Whether a point lies so nearly opposite on a circle that its side is a matter of rounding."""
    lengths = np.asarray(period, np.float64)
    apart = np.abs(distances(points, means, period))
    return bool((np.abs(apart - lengths / 2) < 1e-5 * lengths + 1e-6).any())
