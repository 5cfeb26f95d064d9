"""What a tap would gain at every lag, also where there is none: one correlation by FFT."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.conv.entrance import INT32_MAX, check_cotangent, enter_sequences, widened
from sparse_hyper_jax.conv.spectra import SHARINGS, correlation


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
        ValueError: shapes that do not fit, a reach below 1 or from 2**31 on.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> x = jax.random.normal(jax.random.key(0), (1000, 1))
        >>> error = -conv.lag_conv(x, jnp.ones((1, 1, 1)), lags=[70])  # of y = 0 against the truth
        >>> int(jnp.argmax(-conv.lag_gains(x, error, reach=100)))
        70
    """
    checks.check_choice("sharing", sharing, SHARINGS)
    reach = checks.check_count("reach", reach, least=1, most=INT32_MAX)
    first = int(checks.check_flag("strict", strict))
    x, cotangent = enter_sequences("x", x), enter_sequences("cotangent", cotangent)
    check_cotangent(cotangent, x, sharing)
    x, cotangent = widened(x, cotangent)
    # A lag is a difference to the past.
    gains = jnp.flip(correlation(x, cotangent, ((1 - reach, 0),), sharing=sharing), axis=0)
    return gains if first == 0 else gains.at[0].set(0)


def autocovariance(x: jax.Array, reach: int, *, sharing: str = "shared") -> jax.Array:
    """Measure how much a sequence resembles itself some steps later.

    ``r[u] = mean_c sum_{b,t} (x[b, t - u, c] - m[c]) (x[b, t, c] - m[c]) / (b T)``, with the mean
    ``m`` over batch and time. Divided by the same number for all lags, so that the matrix of
    ``r[|u - s|]`` has no negative eigenvalue. ``r / r[0]`` is what
    :func:`~sparse_hyper_jax.ops.pursue_gains` takes.

    Args:
        x: ``(..., T, C)``.
        reach: number of lags, static; 0 from ``T`` on.
        sharing: ``"shared"``: the mean over channels; ``"channel"``: each channel's own.

    Returns:
        ``(reach,)``, or ``(reach, C)``, float32 or wider.

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
    checks.check_choice("sharing", sharing, SHARINGS)
    reach = checks.check_count("reach", reach, least=1, most=INT32_MAX)
    (x,) = widened(enter_sequences("x", x))
    centred = x - jnp.mean(x, tuple(range(x.ndim - 1)), keepdims=True)
    of_channels = correlation(centred, centred, ((0, reach - 1),), sharing="channel")
    of_channels = of_channels * (x.shape[-1] / x.size)
    return of_channels if sharing == "channel" else jnp.mean(of_channels, axis=-1)
