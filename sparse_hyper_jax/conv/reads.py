"""Read sequences some steps back: shifted copies, whole slices of memory, no table of indices."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax.conv.entrance import LiveLags


def shifted_reads(x: jax.Array, taps: LiveLags, reach: int | None) -> list[jax.Array]:
    """Give ``x[..., t - lag, c]`` for every tap; 0 before the first step, and for empty taps.

    Args:
        x: ``(..., T, C)``.
        taps: ``(k,)``, or ``(k, C)`` with a lag for each channel.
        reach: all live lags are below; None for no limit.

    Returns:
        ``k`` arrays of the shape of ``x``.
    """
    steps = x.shape[-2]
    # Nothing is left of a sequence that is read further back than it is long.
    pad = steps if reach is None else min(reach - 1, steps)
    starts = pad - jnp.clip(taps.lags, 0, pad)
    width = [(0, 0)] * (x.ndim - 2)
    padded = jnp.pad(x, [*width, (pad, 0), (0, 0)])
    reads = []
    for start, live in zip(starts, taps.live, strict=True):
        if start.ndim == 0:
            read, kept = jax.lax.dynamic_slice_in_dim(padded, start, steps, axis=-2), live
        else:
            read = jax.vmap(_column, in_axes=(-1, 0, None), out_axes=-1)(padded, start, steps)
            kept = live.reshape((1,) * (x.ndim - 1) + live.shape)
        # Not by a weight of 0: a NaN that an empty tap reads would come through.
        reads.append(jnp.where(kept, read, 0))
    return reads


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
        every, matrix = jnp.concatenate(reads, -1), weights.reshape(weights.shape[0], -1)
        return jax.lax.dot_general(every, matrix, (((every.ndim - 1,), (1,)), ((), ())))
    lead = (1,) * (reads[0].ndim - 1)
    rows = [row.reshape(*lead, -1) for row in weights]
    total = reads[0] * rows[0]
    for read, row in zip(reads[1:], rows[1:], strict=True):
        total = total + read * row
    return total


def _column(channel: jax.Array, start: jax.Array, steps: int) -> jax.Array:
    """Cut the steps of one channel ``(..., pad + T)`` out."""
    return jax.lax.dynamic_slice_in_dim(channel, start, steps, axis=-1)
