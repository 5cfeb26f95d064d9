"""The convolution of one sequence at a few lags, in the order that moves the least memory.

Reads may be shifted and then multiplied, ``k C`` numbers a step in between; or multiplied and then
shifted, ``k O`` numbers, which is the faster of the two where both are as many, because XLA fuses
the shifts with the sum over taps. Transposed, one becomes the other. So the function multiplies
first and its derivative with respect to the input shifts first: both ways shifts come last.
"""

from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax.conv.entrance import LiveLags
from sparse_hyper_jax.conv.reads import reading_lags, shifted_reads
from sparse_hyper_jax.conv.shift import shift


@jax.custom_jvp
def convolve_sequence(x: jax.Array, weights: jax.Array, taps: LiveLags) -> jax.Array:
    """Give ``y[t] = sum_j x[t - lags[j]] weights[j]``.

    Args:
        x: ``(T, C)``.
        weights: ``(k, C, O)``, 0 for empty taps.
        taps: ``(k,)``.

    Returns:
        ``(T, O)``.
    """
    _, channels, outputs = weights.shape
    order = _shift_first if channels < outputs else _multiply_first
    return order(x, weights, taps)


@convolve_sequence.defjvp
def _jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    """Choose the order for each of the two products, as the cotangent will meet it."""
    x, weights, taps = primals
    by_x, by_weights, _ = tangents
    order = _shift_first if weights.shape[1] <= weights.shape[2] else _multiply_first
    # Tap by tap: the cotangent of the weights needs no copy of all reads side by side, and nothing
    # of steps that no tap reads, whatever they hold.
    reads = shifted_reads(x, taps)
    along_weights = sum(read @ one for read, one in zip(reads, by_weights, strict=True))
    return convolve_sequence(x, weights, taps), order(by_x, weights, taps) + along_weights


def _shift_first(x: jax.Array, weights: jax.Array, taps: LiveLags) -> jax.Array:
    """Put all reads side by side, for one product."""
    reads = jnp.concatenate(shifted_reads(x, taps), -1)
    return reads @ weights.reshape(-1, weights.shape[-1])


def _multiply_first(x: jax.Array, weights: jax.Array, taps: LiveLags) -> jax.Array:
    """Give every tap its part of one product, and add the parts up shifted."""
    parts = jnp.einsum("tc,kco->tko", x, weights)
    lags = reading_lags(taps, x.shape[0])
    total = jnp.zeros((), parts.dtype)
    for tap, lag in enumerate(lags):
        total += shift(parts[:, tap], lag)
    return total
