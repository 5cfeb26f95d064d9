"""What a tap would gain at every lag, also where there is none: one correlation by FFT."""

import math

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.conv.entrance import enter_sequences, widened
from sparse_hyper_jax.placement import place

SHARINGS = ("shared", "channel")
"""Taps that all channels share, or its own for each channel.

Example:
    >>> from sparse_hyper_jax import conv
    >>> x = jnp.ones((6, 3))
    >>> [conv.lag_gains(x, x, reach=4, sharing=sharing).shape for sharing in conv.SHARINGS]
    [(4, 3, 3), (4, 3)]
"""


def lag_gains(
    x: jax.Array,
    cotangent: jax.Array,
    reach: int,
    *,
    sharing: str = "shared",
    strict: bool = False,
) -> jax.Array:
    """Differentiate with respect to the weights of a virtual tap at every lag, without any tap.

    ``G[u] = dL / dW_u = sum_{b,t} x[b, t - u]^T cotangent[b, t]`` for a tap of weights ``W_u`` that
    are zero: exact, for all lags at once, in ``O((T + reach) log (T + reach))`` per channel. A step
    of size ``s`` along ``-G[u]`` lowers the loss by ``s ||G[u]||^2``, at first order.

    Args:
        x: ``(..., T, C)``, what :func:`lag_conv` reads.
        cotangent: ``(..., T, O)``, the gradient of the loss with respect to what it gives.
        reach: number of lags, static. From ``T`` on the gains are 0.
        sharing: ``"shared"``: weights ``(C, O)`` of a lag of all channels; ``"channel"``: each
            channel has its own lags and stays by itself.
        strict: the present is excluded: the gain of lag 0 is 0.

    Returns:
        ``(reach, C, O)``, or ``(reach, C)`` per channel, float32 or wider. Long lags reach back to
        before the first step more often, so they gain less.

    Raises:
        ValueError: shapes that do not fit, a reach below 1.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> x = jax.random.normal(jax.random.key(0), (1000, 1))
        >>> error = -conv.lag_conv(x, jnp.ones((1, 1, 1)), lags=[70])  # of y = 0 against the truth
        >>> int(jnp.argmax(-conv.lag_gains(x, error, reach=100)))
        70
    """
    checks.check_choice("sharing", sharing, SHARINGS)
    reach = checks.check_count("reach", reach, least=1)
    first = int(checks.check_flag("strict", strict))
    x, cotangent = enter_sequences("x", x), enter_sequences("cotangent", cotangent)
    channels = x.shape[-1:] if sharing == "channel" else cotangent.shape[-1:]
    meaning = "the axes of x" + ", and its channels" * (sharing == "channel")
    checks.check_shape("cotangent", cotangent, (*x.shape[:-1], *channels), meaning)
    x, cotangent = widened(x, cotangent)
    length = _fft_length(x.shape[-2] + min(reach, x.shape[-2]) - 1)
    back, now = (jnp.fft.rfft(part, length, axis=-2) for part in (x, cotangent))
    product = _summed_per_channel if sharing == "channel" else _summed
    gains = _whole(jnp.fft.irfft(product(back.conj(), now), length, axis=0), reach, x.shape[-2])
    return gains if first == 0 else gains.at[0].set(0)


def autocovariance(x: jax.Array, reach: int) -> jax.Array:
    """Measure how much a sequence resembles itself some steps later.

    ``r[u] = mean_c sum_{b,t} (x[b, t - u, c] - m[c]) (x[b, t, c] - m[c]) / (b T)``, with the mean
    ``m`` over batch and time. Divided by the same number for all lags, so that the matrix of
    ``r[|u - s|]`` has no negative eigenvalue. ``r / r[0]`` is what
    :func:`~sparse_hyper_jax.ops.pursue_gains` takes.

    Args:
        x: ``(..., T, C)``.
        reach: number of lags, static; 0 from ``T`` on.

    Returns:
        ``(reach,)``, float32 or wider.

    Raises:
        ValueError: as :func:`lag_gains`.

    Reference: Wiener 1930, Khintchine 1934, for the way through the spectrum.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> wave = jnp.sin(jnp.arange(4000) * 2 * jnp.pi / 40)[:, None]
        >>> r = conv.autocovariance(wave, reach=41)
        >>> [round(float(r[u] / r[0]), 1) for u in (0, 10, 20, 40)]
        [1.0, 0.0, -1.0, 1.0]
    """
    reach = checks.check_count("reach", reach, least=1)
    (x,) = widened(enter_sequences("x", x))
    steps, axes = x.shape[-2], tuple(range(x.ndim - 1))
    centred = x - jnp.mean(x, axes, keepdims=True)
    length = _fft_length(steps + min(reach, steps) - 1)
    spectrum = jnp.fft.rfft(centred, length, axis=-2)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    summed = jnp.sum(power, (*range(x.ndim - 2), x.ndim - 1))
    return _whole(jnp.fft.irfft(summed, length), reach, steps) / x.size


def _fft_length(least: int) -> int:
    """The smallest product of 2, 3 and 5 that is not below, and even: others take far longer."""
    best = 2 ** max(1, math.ceil(math.log2(least)))
    for fives in range(14):
        for threes in range(20):
            odd = 5**fives * 3**threes
            if odd < best:
                best = min(best, odd * 2 ** max(1, math.ceil(math.log2(least / odd))))
    return best


def _summed(back: jax.Array, now: jax.Array) -> jax.Array:
    """Multiply spectra ``(..., F, C)`` and ``(..., F, O)``, summed over the batch."""
    batch, frequency = tuple(range(back.ndim - 2)), (back.ndim - 2,)
    if not batch:
        return back[:, :, None] * now[:, None, :]
    spread = any(axis is not None for axis in jax.typeof(back).sharding.spec)
    whole = place(back, jax.P()) if spread else None
    dimensions = ((batch, batch), (frequency, frequency))
    return jax.lax.dot_general(back, now, dimensions, out_sharding=whole)


def _summed_per_channel(back: jax.Array, now: jax.Array) -> jax.Array:
    return jnp.sum(back * now, tuple(range(back.ndim - 2)))


def _whole(gains: jax.Array, reach: int, steps: int) -> jax.Array:
    """The lags below ``reach`` of a correlation, which are 0 from ``steps`` on."""
    gains = gains[: min(reach, steps)]
    return jnp.pad(gains, [(0, reach - gains.shape[0])] + [(0, 0)] * (gains.ndim - 1))
