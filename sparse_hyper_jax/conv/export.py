"""Taps as dense kernels: for other tools, and to check against their convolutions."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.conv.entrance import (
    INT32_MAX,
    enter_lags,
    enter_offsets,
    enter_weights,
    enter_window,
    widened,
)
from sparse_hyper_jax.conv.plane import window_spans
from sparse_hyper_jax.entrance import as_array


def lag_kernel(
    weights: jax.Array,
    lags: jax.Array,
    placed: Any = None,
    *,
    reach: int,
    strict: bool = False,
) -> jax.Array:
    """Write the taps of :func:`lag_conv` into a dense kernel by lag.

    ``kernel[u]`` is the sum of the weights of all taps of lag ``u``. For ``jax.lax.conv`` and its
    like, which read forwards, turn it round: ``kernel[::-1]`` with ``reach - 1`` zeros of padding
    on the left.

    Args:
        weights: ``(k, C, O)`` or ``(k, C)``.
        lags: integers ``(k,)`` or ``(k, C)``.
        placed: bool, of the shape of ``lags``; None for all true.
        reach: number of lags of the kernel, static; taps beyond it count for nothing.
        strict: see :func:`lag_conv`.

    Returns:
        ``(reach, C, O)`` or ``(reach, C)``, float32 or wider.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> conv.lag_kernel(jnp.array([[2.0], [3.0], [4.0]]), [0, 3, 3], reach=5).ravel().tolist()
        [2.0, 0.0, 0.0, 7.0, 0.0]
    """
    reach = checks.check_count("reach", reach, least=1, most=INT32_MAX)
    weights = as_array("weights", weights)
    checks.require(
        weights.ndim in (2, 3) and min(weights.shape[:2]) >= 1,
        f"weights of shape {weights.shape}",
        "(k, C, O) or (k, C), with k and C at least 1",
        "reshape weights",
    )
    channels = weights.shape[1]
    taps = enter_lags(lags, placed, channels=channels, reach=reach, strict=strict)
    (weights,) = widened(enter_weights(weights, taps.lags.shape[0], channels))
    lags, live = (_per_channel(part, channels) for part in taps)
    return _scattered(weights, lags, live, reach)


def offset_kernel(
    weights: jax.Array, offsets: jax.Array, placed: Any = None, *, window: Sequence[int]
) -> jax.Array:
    """Write the taps of :func:`offset_conv` into a dense kernel of a window.

    As ``jax.lax.conv`` reads it: with ``height // 2`` zeros of padding above and
    ``height - 1 - height // 2`` below, and so for the width, it gives what :func:`offset_conv`
    gives.

    Args:
        weights: ``(k, C, O)`` or ``(k, C)``.
        offsets: integers ``(k, 2)``.
        placed: bool ``(k,)``; None for all true.
        window: ``(height, width)``, static; offsets outside count for nothing.

    Returns:
        ``(height, width, C, O)`` or ``(height, width, C)``, float32 or wider.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> weights = jnp.array([[2.0], [3.0]])
        >>> conv.offset_kernel(weights, [[0, 0], [-1, 1]], window=(3, 3))[..., 0].tolist()
        [[0.0, 0.0, 3.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]
    """
    height, width = enter_window(window)
    cells = checks.check_flat_size("window", (height, width))
    offsets, live = enter_offsets(offsets, placed)
    weights = as_array("weights", weights)
    checks.require(
        weights.ndim in (2, 3),
        f"weights of shape {weights.shape}",
        "(k, C, O) or (k, C)",
        "reshape",
    )
    channels = weights.shape[1]
    (weights,) = widened(enter_weights(weights, offsets.shape[0], channels))
    places = []
    for axis, (low, high) in enumerate(window_spans((height, width))):
        live &= (offsets[:, axis] >= low) & (offsets[:, axis] <= high)
        places.append(jnp.clip(offsets[:, axis], low, high) - low)
    flat = places[0] * width + places[1]
    flat, live = (_per_channel(part, channels) for part in (flat, live))
    kernel = _scattered(weights, flat, live, cells)
    return kernel.reshape(height, width, *kernel.shape[1:])


def _per_channel(part: jax.Array, channels: int) -> jax.Array:
    """Repeat what all channels share for each of them: ``(k, C)``."""
    return part if part.ndim == 2 else jnp.broadcast_to(part[:, None], (part.shape[0], channels))


def _scattered(weights: jax.Array, cells: jax.Array, live: jax.Array, count: int) -> jax.Array:
    """Add weights ``(k, C, ...)`` up by cells ``(k, C)``, to ``(count, C, ...)``."""
    live = live.reshape(live.shape + (1,) * (weights.ndim - 2))
    weights = jnp.where(live, weights, 0)
    # A sum over comparisons is spread over devices like its arguments; a scatter would not be.
    hits = cells[None] == jnp.arange(count, dtype=cells.dtype)[:, None, None]
    hits = hits.reshape(hits.shape + (1,) * (weights.ndim - 2))
    return jnp.sum(jnp.where(hits, weights[None], 0), axis=1)
