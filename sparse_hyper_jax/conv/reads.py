"""Read sequences some steps back: shifted copies, whole slices of memory, no table of indices."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax.conv.entrance import LiveLags
from sparse_hyper_jax.conv.shift import shift


def shifted_reads(x: jax.Array, taps: LiveLags) -> list[jax.Array]:
    """Give ``x[..., t - lag, c]`` for every tap; 0 before the first step, and for empty taps.

    Args:
        x: ``(..., T, C)``.
        taps: ``(k,)``, or ``(k, C)`` with a lag for each channel.

    Returns:
        ``k`` arrays of the shape of ``x``.
    """
    lags = reading_lags(taps, x.shape[-2])
    if lags.ndim == 1:
        return [shift(x, lag) for lag in lags]
    over_channels = jax.vmap(shift, in_axes=-1, out_axes=-1)
    return [over_channels(x[..., None, :], lag)[..., 0, :] for lag in lags]


def reading_lags(taps: LiveLags, steps: int) -> jax.Array:
    """Give lags at which :func:`shift` reads nothing for an empty tap: those beyond all steps.

    Not zeros by a weight of 0, through which a NaN that an empty tap reads would come.
    """
    return jnp.where(taps.live, taps.lags, steps)


def ready_weights(weights: jax.Array, live: jax.Array) -> jax.Array:
    """Make weights what :func:`mix_reads` takes, 0 for empty taps whatever they hold.

    Args:
        weights: ``(k, C, O)`` or ``(k, C)``.
        live: ``(k,)`` or ``(k, C)``.

    Returns:
        ``(O, k, C)``: for their gradient, cotangents are transposed and not the reads, which are
        larger; or ``(k, C)``.
    """
    live = live.reshape(live.shape + (1,) * (weights.ndim - live.ndim))
    weights = jnp.where(live, weights, 0)
    return jnp.moveaxis(weights, -1, 0) if weights.ndim == 3 else weights


def mix_reads(reads: list[jax.Array], weights: jax.Array) -> jax.Array:
    """Give the sum over taps of reads times weights.

    Args:
        reads: ``k`` arrays ``(..., C)``, of the dtype of the weights.
        weights: ``(O, k, C)``: one product of matrices; or ``(k, C)``.

    Returns:
        ``(..., O)`` or ``(..., C)``.
    """
    if weights.ndim == 3:
        outputs, taps, channels = weights.shape
        every, matrix = jnp.concatenate(reads, -1), weights.reshape(outputs, taps * channels)
        return jax.lax.dot_general(every, matrix, (((every.ndim - 1,), (1,)), ((), ())))
    lead = (1,) * (reads[0].ndim - 1)
    rows = [row.reshape(*lead, -1) for row in weights]
    total = reads[0] * rows[0]
    for read, row in zip(reads[1:], rows[1:], strict=True):
        total = total + read * row
    return total
