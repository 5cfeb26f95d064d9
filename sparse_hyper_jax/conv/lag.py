"""Causal convolutions with few taps, each anywhere in the past."""

from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.conv.entrance import (
    LiveLags,
    enter_lags,
    enter_sequences,
    enter_weights,
    widened,
)
from sparse_hyper_jax.conv.reads import mix_reads, ready_weights, shifted_reads
from sparse_hyper_jax.conv.sequence import convolve_sequence

CACHE_BYTES = 2**22
"""What reading all at once may take on a CPU; measured by ``benchmarks/lags_speed.py``."""


def lag_conv(
    x: jax.Array,
    weights: jax.Array,
    lags: jax.Array,
    placed: Any = None,
    *,
    reach: int | None = None,
    strict: bool = False,
    one_by_one: bool | None = None,
) -> jax.Array:
    """Convolve sequences with a kernel that is zero but for a few lags.

    ``y[t] = sum_j x[t - lags[j]] weights[j]``, with 0 before the first step. The cost is that of a
    dilated convolution of ``k`` taps, however far these reach. Lags may be traced: moving a tap
    compiles nothing. Taps of equal lags add up. A tap counts for nothing (value 0, slope 0,
    whatever its weights hold) in an empty slot, and where its lag is negative, from ``reach`` on
    or, if ``strict``, 0.

    Args:
        x: ``(..., T, C)``; batches lead.
        weights: ``(k, C, O)``; or ``(k, C)`` where every channel stays by itself.
        lags: integers ``(k,)`` in steps, shared by all channels; or ``(k, C)``, each channel's own.
        placed: bool, of the shape of ``lags``; false marks an empty slot. None for all true.
        reach: number of lags that may be read, 0 to ``reach - 1``, static. None for all of the
            past.
        strict: the present is excluded: ``y[t]`` depends on ``x`` before ``t`` alone, as what
            predicts ``x[t]`` must. Lags keep their meaning.
        one_by_one: sequences of the batch follow each other, in the memory of one: ``k`` copies of
            a sequence, where else there are ``k`` of the batch. Not for accelerators, nor for
            batches that are spread over devices. None does so where it is faster: on a CPU that is
            the only device, if all copies are larger than a cache. A weight of NaN then shows from
            the step on that its tap reads first.

    Returns:
        ``(..., T, O)`` or ``(..., T, C)``, float32 or wider.

    Raises:
        ValueError: shapes that do not fit, lags that are no integers.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> x = jnp.arange(1.0, 6.0)[:, None]
        >>> y = conv.lag_conv(x, weights=jnp.array([[[1.0]], [[10.0]]]), lags=jnp.array([0, 3]))
        >>> y[:, 0].tolist()
        [1.0, 2.0, 3.0, 14.0, 25.0]
    """
    x = enter_sequences("x", x)
    taps = enter_lags(lags, placed, channels=x.shape[-1], reach=reach, strict=strict)
    weights = enter_weights(weights, taps.lags.shape[0], x.shape[-1])
    x, weights = widened(x, weights)
    if one_by_one is None:
        one_by_one = _is_large(taps.lags.shape[0] * x.size * x.dtype.itemsize)
    if not checks.check_flag("one_by_one", one_by_one) or x.ndim == 2:
        return mix_reads(shifted_reads(x, taps), ready_weights(weights, taps.live))
    y = _one_by_one(x.reshape(-1, *x.shape[-2:]), weights, taps)
    return y.reshape(*x.shape[:-1], y.shape[-1])


def _one_by_one(x: jax.Array, weights: jax.Array, taps: LiveLags) -> jax.Array:
    """Convolve sequences ``(B, T, C)`` in turn; the gradient reads again what else were kept."""
    if weights.ndim == 3 and taps.lags.ndim == 1:
        used = jnp.where(taps.live[:, None, None], weights, 0)

        def convolved(x: jax.Array) -> jax.Array:
            return convolve_sequence(x, used, taps)
    else:
        used = ready_weights(weights, taps.live)

        def convolved(x: jax.Array) -> jax.Array:
            return mix_reads(shifted_reads(x, taps), used)

    return jax.lax.map(jax.checkpoint(convolved), x)


def _is_large(size: int) -> bool:
    """Say whether copies of so many bytes are better made one after the other."""
    return size > CACHE_BYTES and jax.default_backend() == "cpu" and jax.device_count() == 1
