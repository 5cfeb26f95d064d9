"""Correlations at all lags or offsets by FFT, summed over the batch."""

import math
from functools import partial

import jax
import jax.numpy as jnp

from sparse_hyper_jax.placement import place

SHARINGS = ("shared", "channel")
"""Taps that all channels share, or its own for each channel.

Example:
    >>> from sparse_hyper_jax import conv
    >>> x = jnp.ones((6, 3))
    >>> [conv.lag_gains(x, x, reach=4, sharing=sharing).shape for sharing in conv.SHARINGS]
    [(4, 3, 3), (4, 3)]
"""


@partial(jax.jit, static_argnames=("spans", "sharing", "circular"), inline=True)
def correlation(
    x: jax.Array,
    y: jax.Array,
    spans: tuple[tuple[int, int], ...],
    *,
    sharing: str,
    circular: bool = False,
) -> jax.Array:
    """Give ``sum_{b,p} x[b, p + s]^T y[b, p]`` for all differences ``s`` of some spans.

    Args:
        x: ``(..., *sizes, C)`` of floats, with ``r`` sizes.
        y: ``(..., *sizes, O)``.
        spans: for each of the ``r`` axes the smallest and the largest difference; 0 lies between.
        sharing: ``"shared"``: every channel with every other; ``"channel"``: with itself.
        circular: every axis is a circle, on which no difference occurs twice; else there is 0
            outside.

    Returns:
        ``(*differences, C, O)``, or ``(*differences, C)``.
    """
    rank = len(spans)
    axes = tuple(range(x.ndim - 1 - rank, x.ndim - 1))
    sizes = [x.shape[axis] for axis in axes]
    # Beyond its size a sequence has no overlap with itself.
    inner = [
        (max(low, 1 - size), min(high, size - 1)) if not circular else (low, high)
        for (low, high), size in zip(spans, sizes, strict=True)
    ]
    lengths = [
        size if circular else smooth_length(size + max(-low, high))
        for (low, high), size in zip(inner, sizes, strict=True)
    ]
    ahead, here = (jnp.fft.rfftn(part, lengths, axes) for part in (x, y))
    product = _summed if sharing == "shared" else _summed_per_channel
    summed = jnp.fft.irfftn(product(ahead, here.conj(), rank), lengths, tuple(range(rank)))
    for axis, (low, high) in enumerate(inner):
        summed = jnp.roll(summed, -low, axis)
        summed = jax.lax.slice_in_dim(summed, 0, high - low + 1, axis=axis)
    outside = [
        (inside[0] - whole[0], whole[1] - inside[1])
        for inside, whole in zip(inner, spans, strict=True)
    ]
    return jnp.pad(summed, outside + [(0, 0)] * (summed.ndim - rank))


def smooth_length(least: int) -> int:
    """The smallest even product of 2, 3 and 5 from ``least`` on: others take far longer."""
    best = 2 ** max(1, math.ceil(math.log2(least)))
    for fives in range(14):
        for threes in range(20):
            odd = 5**fives * 3**threes
            if odd < best:
                best = min(best, odd * 2 ** max(1, math.ceil(math.log2(least / odd))))
    return best


def _summed(ahead: jax.Array, here: jax.Array, rank: int) -> jax.Array:
    """Multiply spectra ``(..., *F, C)`` and ``(..., *F, O)`` to ``(*F, C, O)``."""
    lead = ahead.ndim - 1 - rank
    if lead == 0:
        return ahead[..., :, None] * here[..., None, :]
    return summed_product(ahead, here, tuple(range(lead)), tuple(range(lead, lead + rank)))


def summed_product(
    one: jax.Array, other: jax.Array, summed: tuple[int, ...], kept: tuple[int, ...] = ()
) -> jax.Array:
    """Multiply the last axes of two arrays, summed over some axes, whole on every device.

    Args:
        one: ``(..., C)``.
        other: ``(..., O)``, with the same axes before the last.
        summed: numbers of the axes to sum over, which may be spread.
        kept: of those that come first in the result.

    Returns:
        ``(*kept, C, O)``.
    """
    spread = any(axis is not None for axis in jax.typeof(one).sharding.spec)
    whole = place(one, jax.P()) if spread else None
    return jax.lax.dot_general(one, other, ((summed, summed), (kept, kept)), out_sharding=whole)


def _summed_per_channel(ahead: jax.Array, here: jax.Array, rank: int) -> jax.Array:
    return jnp.sum(ahead * here, tuple(range(ahead.ndim - 1 - rank)))
