"""Causal convolutions with few taps, each anywhere in the past."""

from typing import Any

import jax

from sparse_hyper_jax.conv.entrance import enter_lags, enter_sequences, enter_weights, widened
from sparse_hyper_jax.conv.reads import mix_reads, shifted_reads


def lag_conv(
    x: jax.Array,
    weights: jax.Array,
    lags: jax.Array,
    placed: Any = None,
    *,
    reach: int | None = None,
    strict: bool = False,
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
        reach: number of lags that may be read, 0 to ``reach - 1``, static; less memory if it is
            known. None for all of the past.
        strict: the present is excluded: ``y[t]`` depends on ``x`` before ``t`` alone, as what
            predicts ``x[t]`` must. Lags keep their meaning.

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
    return mix_reads(shifted_reads(x, taps, reach), weights, taps.live)
