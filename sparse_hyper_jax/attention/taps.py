"""Attention of one head at its lags: two passes over the taps, each in the memory of one."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from sparse_hyper_jax.attention.entrance import HeadTaps


# Compiled once outside of jit: the loops inside are made anew by every call.
@partial(jax.jit, inline=True)
def head_weights(query: jax.Array, key: jax.Array, taps: HeadTaps) -> tuple[jax.Array, jax.Array]:
    """Give the weights of all taps, and the logarithm of what they were divided by.

    Args:
        query: ``(T, d)``, scaled.
        key: ``(T, d)``.
        taps: of the head, ``(n,)``.

    Returns:
        weights ``(n, T)``, 0 where a lag reaches before the start, and ``(T,)``, -inf where no
        tap is live.
    """
    reads = _starts(taps, len(query))

    # Recomputed on the way back: what is kept is O(T), not a shifted copy for every tap.
    @partial(jax.checkpoint, prevent_cse=False)
    def logits(query: jax.Array, padded: jax.Array, start: jax.Array) -> jax.Array:
        return jnp.sum(query * _shifted(padded, start), axis=-1)

    padded = _padded(key)
    _, scores = lax.scan(lambda _, start: (None, logits(query, padded, start)), None, reads)
    times = jnp.arange(len(query), dtype=jnp.int32)
    return masked_softmax(scores, times[None] + reads[:, None] >= len(query))


@partial(jax.jit, inline=True)
def head_values(weights: jax.Array, value: jax.Array, taps: HeadTaps) -> jax.Array:
    """Add up the values ``(T, e)`` at all taps, with weights ``(n, T)``."""

    @partial(jax.checkpoint, prevent_cse=False)
    def add(total: jax.Array, padded: jax.Array, weight: jax.Array, start: jax.Array) -> jax.Array:
        return total + weight[:, None] * _shifted(padded, start)

    padded = _padded(value)
    total, _ = lax.scan(
        lambda total, tap: (add(total, padded, *tap), None),
        jnp.zeros_like(value),
        (weights, _starts(taps, len(value))),
    )
    return total


@partial(jax.jit, inline=True)
def masked_softmax(scores: jax.Array, live: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Give the softmax over the first axis of what is live, and the logarithm of its divisor.

    A column with nothing live has weights 0 and logarithm -inf; a score of -inf counts as not live.
    """
    live = live & (scores != -jnp.inf)
    highest = jnp.max(
        jnp.where(live, lax.stop_gradient(scores), -jnp.inf), axis=0, initial=-jnp.inf
    )
    some = highest != -jnp.inf
    highest = jnp.where(some, highest, 0)
    # The exponential of what is masked may be infinite: masked before and after (double where).
    powers = jnp.where(live, jnp.exp(jnp.where(live, scores - highest[None], 0)), 0)
    total = jnp.where(some, jnp.sum(powers, axis=0), 1)
    return powers / total[None], jnp.where(some, jnp.log(total) + highest, -jnp.inf)


def _starts(taps: HeadTaps, length: int) -> jax.Array:
    """Give the row of the padded sequence from which each tap reads.

    A tap that is not live reads the zeros before the start alone: it counts for nothing, whatever
    the rows hold, and they get no gradient from it.
    """
    reached = taps.live & (taps.lags < length)
    return jnp.where(reached, length - taps.lags, 0).astype(jnp.int32)


def _padded(rows: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.zeros_like(rows), rows])


def _shifted(padded: jax.Array, start: jax.Array) -> jax.Array:
    length = len(padded) // 2
    return lax.dynamic_slice_in_dim(padded, start, length)
