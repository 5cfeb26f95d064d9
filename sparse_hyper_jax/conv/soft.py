"""Taps between lags: shares of a few points, through which a gradient reaches the positions.

For fine-tuning what pursuit has placed, and as what to compare it with: a gradient sees only the
points that were read, so taps that start elsewhere seldom find a far lag.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from sparse_hyper_jax import checks
from sparse_hyper_jax.conv.entrance import (
    LiveLags,
    enter_lags,
    enter_placed,
    enter_sequences,
    enter_weights,
    widened,
)
from sparse_hyper_jax.conv.reads import mix_reads, ready_weights, shifted_reads
from sparse_hyper_jax.entrance import as_array, as_int32
from sparse_hyper_jax.ops import ContinuousTuples, relax
from sparse_hyper_jax.precision import at_least_float32


class LagShares(NamedTuple):
    """Lags that each tap reads, and its shares of them.

    Attributes:
        lags: int32 ``(q, k)``, or ``(q, k, C)`` with own lags for each channel.
        shares: floats of that shape; over ``q`` they sum to 1.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> conv.linear_shares(jnp.array([2.25])).lags.tolist()
        [[2], [3]]
    """

    lags: jax.Array
    shares: jax.Array


export.register_namedtuple_serialization(LagShares, serialized_name="sparse_hyper_jax.LagShares")


def linear_shares(means: jax.Array) -> LagShares:
    """Share every tap among the two lags beside it, as linear interpolation does.

    Lag ``floor(m)`` gets ``1 - (m - floor(m))``, the next one the rest. The gradient of a mean is
    what the one reads less what the other reads: it knows nothing of lags further away.

    Args:
        means: ``(k,)`` or ``(k, C)``, in steps.

    Returns:
        two lags per tap. A mean of NaN has shares of NaN.

    Raises:
        ValueError: another rank.

    Reference: Hassani et al. 2021, arXiv 2112.03740.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> conv.linear_shares(jnp.array([2.25, 7.0])).shares.tolist()
        [[0.75, 1.0], [0.25, 0.0]]
    """
    means = at_least_float32(as_array("means", means))
    checks.require(
        means.ndim in (1, 2), f"means of shape {means.shape}", "(k,) or (k, C)", "reshape means"
    )
    low = jax.lax.stop_gradient(jnp.floor(means))
    share = means - low
    # What is no number, or too far to count, has no lag: -1 counts for nothing.
    known = jnp.isfinite(low) & (jnp.abs(low) < 2**30)
    lag = jnp.where(known, low, -2).astype(jnp.int32)
    lags = jnp.stack([lag, lag + 1])
    # A mean of NaN reads the present, by a share of NaN.
    lags = jnp.where(jnp.isnan(means)[None], 0, lags)
    return LagShares(lags, jnp.stack([1 - share, share]))


def gaussian_shares(
    key: jax.Array | None,
    means: jax.Array,
    variances: jax.Array,
    reach: int,
    *,
    num_global: int = 2,
    num_local: int = 2,
    region: int | None = None,
) -> LagShares:
    """Share every tap among its two neighbours and some drawn lags, by a Gaussian's density.

    The hyperlayer's relaxation of one-axis tuples, each by itself:
    ``q = 2 + num_global + num_local`` lags, of which repeated ones have share 0. Let the variances
    fall in training, from about a quarter of the reach squared to well below 1.

    Args:
        key: a typed key; None without drawn lags.
        means: ``(k,)``, in steps, within ``[0, reach - 1]``.
        variances: ``(k,)``, in squared steps.
        reach: number of lags, static.
        num_global: lags drawn from all.
        num_local: lags drawn from ``region`` around the mean.
        region: static; needed with local lags. By default a sixteenth of the reach, at least 4.

    Returns:
        ``q`` lags per tap.

    Raises:
        ValueError: shapes or counts that do not fit.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> key, means = jax.random.key(0), jnp.array([3.5, 60.0])
        >>> lags, shares = conv.gaussian_shares(key, means, jnp.array([0.1, 40.0]), reach=100)
        >>> lags.shape, shares.sum(0).round(3).tolist()
        ((6, 2), [1.0, 1.0])
    """
    reach = checks.check_count("reach", reach, least=1)
    means, variances = as_array("means", means), as_array("variances", variances)
    checks.check_shape("means", means, (None,), "(k,): one per tap")
    checks.check_shape("variances", variances, means.shape, "one per mean")
    if region is None:
        region = min(reach, max(4, reach // 16))
    means, variances = widened(means, variances)
    tuples = ContinuousTuples(means[:, None], variances[:, None], jnp.ones_like(means))
    entries = relax(
        key,
        tuples,
        (reach,),
        num_global=num_global,
        num_local=num_local,
        region=(region,),
        chunk_size=1,
    )
    count = means.shape[0]
    lags, shares = entries.indices[:, 0].reshape(count, -1), entries.values.reshape(count, -1)
    return LagShares(lags.T, shares.T)


def soft_lag_conv(
    x: jax.Array,
    weights: jax.Array,
    shares: LagShares,
    placed: Any = None,
    *,
    reach: int | None = None,
    strict: bool = False,
) -> jax.Array:
    """Convolve sequences with taps that are shared among lags.

    ``y[t] = sum_j (sum_q shares[q, j] x[t - lags[q, j]]) weights[j]``: ``q`` times the reads of
    :func:`lag_conv`, and one product as there. With all of each tap's share on one lag it is
    :func:`lag_conv`.

    Args:
        x: ``(..., T, C)``.
        weights: ``(k, C, O)`` or ``(k, C)``.
        shares: of :func:`linear_shares` or :func:`gaussian_shares`.
        placed: bool ``(k,)``, or ``(k, C)`` with own lags for each channel.
        reach: see :func:`lag_conv`; shares of lags from there on are lost.
        strict: see there; so is a share of lag 0.

    Returns:
        ``(..., T, O)`` or ``(..., T, C)``, float32 or wider.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> x, w = jnp.arange(0.0, 60.0, 10.0)[:, None], jnp.ones((1, 1, 1))
        >>> y = lambda mean: conv.soft_lag_conv(x, w, conv.linear_shares(mean[None]))[5, 0]
        >>> float(y(jnp.float32(2.25))), float(jax.grad(y)(jnp.float32(2.25)))
        (27.5, -10.0)
    """
    x = enter_sequences("x", x)
    lags, portions = _enter_shares(shares)
    count = lags.shape[1]
    flat = lags.reshape(-1, *lags.shape[2:])
    taps = enter_lags(flat, None, channels=x.shape[-1], reach=reach, strict=strict)
    weights = enter_weights(weights, count, x.shape[-1])
    live = jnp.ones(lags.shape[1:], bool)
    live = live if placed is None else enter_placed(placed, lags.shape[1:])
    every = jnp.broadcast_to(live[None], lags.shape).reshape(flat.shape)
    x, weights, portions = widened(x, weights, portions)
    portions = jnp.where(taps.live & every, portions.reshape(flat.shape), 0)
    reads = shifted_reads(x, LiveLags(taps.lags, taps.live & every))
    parts = [read * _last(share, x.ndim) for read, share in zip(reads, portions, strict=True)]
    mixed = [sum(parts[tap + count :: count], parts[tap]) for tap in range(count)]
    return mix_reads(mixed, ready_weights(weights, live))


def _enter_shares(shares: Any) -> LagShares:
    """Return lags and shares after checking that they agree."""
    checks.require(
        isinstance(shares, tuple | list) and len(shares) == len(LagShares._fields),
        f"shares of type {type(shares).__name__}",
        "lags and shares of them",
        "pass what linear_shares or gaussian_shares gave",
    )
    lags, portions = as_int32("shares.lags", shares[0]), as_array("shares.shares", shares[1])
    checks.require(
        lags.ndim in (2, 3) and min(lags.shape[:2]) >= 1,
        f"shares.lags of shape {lags.shape}",
        "(q, k) or (q, k, C), with q and k at least 1",
        "pass what linear_shares or gaussian_shares gave",
    )
    checks.check_shape("shares.shares", portions, lags.shape, "one share for every lag")
    return LagShares(lags, portions)


def _last(share: jax.Array, rank: int) -> jax.Array:
    """Let a share ``()`` or ``(C,)`` stand on the last axis of so many."""
    return share.reshape((1,) * (rank - share.ndim) + share.shape)
