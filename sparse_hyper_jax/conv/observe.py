"""What a probe looks at in a layer, and how that places taps: the two halves of a probe.

They are apart because the first is made where inputs and cotangents are, which may be inside of a
backward pass, and the second where the taps are.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks, ops
from sparse_hyper_jax.conv.entrance import (
    check_cotangent,
    enter_planes,
    enter_sequences,
    enter_window,
    widened,
)
from sparse_hyper_jax.conv.gains import autocovariance, lag_gains
from sparse_hyper_jax.conv.plane import offset_autocovariance, offset_gains
from sparse_hyper_jax.conv.spectra import summed_product
from sparse_hyper_jax.entrance import as_array, as_int32
from sparse_hyper_jax.ops import Taps
from sparse_hyper_jax.placement import gathered


class Seen(NamedTuple):
    """What a probe has seen of a layer."""

    gains: jax.Array
    """``(*cells, C, m)``, whitened and decorrelated; ``(reach, C, m)`` of own lags, whitened."""

    autocovariance: jax.Array
    """Of the inputs, by difference of cells; or ``(reach, C)`` per channel."""


def observe_lags(
    x: jax.Array, cotangent: jax.Array, *, reach: int, strict: bool, directions: int
) -> Seen:
    """Look at a layer whose lags all channels share; see :func:`~.probe.probe_lags`."""
    x, cotangent = _enter_pair(enter_sequences("x", x), enter_sequences("cotangent", cotangent))
    white = ops.whiten_cotangent(cotangent, count=directions)
    gains = lag_gains(x, white, reach, strict=strict)
    gains = ops.decorrelated_gains(gains, channel_covariance(x))
    return Seen(gains, autocovariance(x, reach))


def observe_offsets(
    x: jax.Array, cotangent: jax.Array, *, window: Sequence[int], wrap: bool, directions: int
) -> Seen:
    """Look at a layer of offsets; see :func:`~.probe.probe_offsets`."""
    window = enter_window(window)
    x, cotangent = _enter_pair(enter_planes("x", x), enter_planes("cotangent", cotangent))
    white = ops.whiten_cotangent(cotangent, count=directions)
    gains = offset_gains(x, white, window, wrap=wrap)
    gains = ops.decorrelated_gains(gains, channel_covariance(x))
    return Seen(gains, offset_autocovariance(x, window, wrap=wrap))


def observe_delays(
    x: jax.Array,
    cotangent: jax.Array,
    *,
    reach: int,
    strict: bool,
    mixed: bool,
    directions: int,
) -> Seen:
    """Look at a layer of own delays of channels; see :func:`~.probe.probe_delays`."""
    x, cotangent = enter_sequences("x", x), enter_sequences("cotangent", cotangent)
    correlation = autocovariance(x, reach, sharing="channel")
    if checks.check_flag("mixed", mixed):
        x, cotangent = _enter_pair(x, cotangent)
        white = ops.whiten_cotangent(cotangent, count=directions)
        return Seen(lag_gains(x, white, reach, strict=strict), correlation)
    check_cotangent(cotangent, x, "channel")
    x, cotangent = widened(x, cotangent)
    # An unsettled bias looks like a gain of every lag.
    centred = cotangent - jnp.mean(cotangent, tuple(range(x.ndim - 1)), keepdims=True)
    gains = lag_gains(x, centred, reach, sharing="channel", strict=strict)
    return Seen(gains[..., None], correlation)


def place_shared(
    seen: Seen,
    taps: Taps,
    count: int,
    *,
    min_z: float | jax.Array | None,
    apart: int,
    allowed: Any,
) -> Taps:
    """Place taps of all channels by what was seen."""
    return ops.pursue_gains(
        seen.gains,
        taps,
        count,
        autocorrelation=seen.autocovariance,
        min_z=min_z,
        apart=apart,
        allowed=allowed,
    )


def place_own(
    seen: Seen,
    taps: Taps,
    count: int,
    *,
    strict: bool,
    min_z: float | jax.Array | None,
    apart: int,
) -> Taps:
    """Place taps of every channel, ``(C, k)`` slots, by what was seen."""
    reach, channels, directions = seen.gains.shape
    taps = _enter_own_taps(taps, channels)
    count = min(checks.check_count("count", count), taps.placed.shape[1])
    if min_z is not None:
        checks.check_number("min_z", min_z)
    allowed = lags_from(reach, strict=strict)

    def of_channel(gains: jax.Array, correlation: jax.Array, taps: Taps) -> Taps:
        for _ in range(count):
            scores = ops.residual_scores(gains, taps, autocorrelation=correlation)
            z = _standard_deviations(scores, directions)
            taps = ops.pursue(z, taps, 1, apart=apart, allowed=allowed, threshold=min_z)
        return taps

    return jax.vmap(of_channel, in_axes=(1, 1, 0))(*seen, taps)


def lags_from(reach: int, *, strict: bool) -> jax.Array:
    """Flags of the lags that may be placed: all, or all but the present."""
    return jnp.arange(reach, dtype=jnp.int32) >= int(strict)


def channel_covariance(x: jax.Array) -> jax.Array:
    """Give the covariance ``(C, C)`` of the channels of ``(..., C)``, over all other axes."""
    axes = tuple(range(x.ndim - 1))
    centred = x - jnp.mean(x, axes, keepdims=True)
    return summed_product(centred, centred, axes) * (x.shape[-1] / x.size)


def _standard_deviations(scores: jax.Array, count: int) -> jax.Array:
    """Say how far sums of so many squares stand out, as normal numbers of variance 1 do.

    The cube root of a chi-square of ``m`` degrees, divided by its median, is nearly normal around 1
    with variance ``2 / (9 m) / (1 - 2 / (9 m))**2`` (Wilson and Hilferty 1931). The median is that
    of the noise: few lags have a gain.
    """
    typical = jnp.nanmedian(jnp.where(jnp.isfinite(scores), scores, jnp.nan))
    # A channel without any gain has nothing that stands out.
    typical = jnp.maximum(typical, jnp.finfo(scores.dtype).tiny)
    roots = jnp.cbrt(jnp.maximum(scores, 0) / typical)
    middle = 1 - 2 / (9 * count)
    return jnp.where(scores > 0, (roots - 1) * (middle / (2 / (9 * count)) ** 0.5), -jnp.inf)


def _enter_pair(x: jax.Array, cotangent: jax.Array) -> list[jax.Array]:
    """Check that a cotangent belongs to what was read; give both whole, in one dtype."""
    check_cotangent(cotangent, x, "shared")
    return widened(gathered(x), gathered(cotangent))


def _enter_own_taps(taps: Any, channels: int) -> Taps:
    """Return slots of every channel after checking their shapes."""
    checks.require(
        isinstance(taps, tuple | list) and len(taps) == len(Taps._fields),
        f"taps={taps!r:.80}",
        "Taps of every channel",
        "pass Taps(positions, placed)",
    )
    positions = as_int32("positions", taps[0])
    placed = as_array("placed", taps[1], "flags")
    checks.check_shape("positions", positions, (channels, None, 1), "(C, k, 1)")
    checks.check_shape("placed", placed, positions.shape[:2], "(C, k): one flag per slot")
    return Taps(positions, placed)
