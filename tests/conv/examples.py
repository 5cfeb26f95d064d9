"""Examples and slow oracles that the tests of this room share, in NumPy."""

import numpy as np


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def naive_lag_conv(x, weights, lags, placed=None, *, reach=None, strict=False):
    """One number after the other: batch, step, tap, channel."""
    x, weights, lags = (np.asarray(part) for part in (x, weights, lags))
    taps, channels = weights.shape[:2]
    lags = lags[:, None] if lags.ndim == 1 else lags
    lags = np.broadcast_to(lags, (taps, channels))
    placed = np.ones(lags.shape, bool) if placed is None else np.asarray(placed)
    placed = np.broadcast_to(placed.reshape(taps, -1), lags.shape)
    dense = weights.ndim == 3
    y = np.zeros((*x.shape[:-1], weights.shape[2] if dense else channels))
    for step in range(x.shape[-2]):
        for tap, channel in np.ndindex(taps, channels):
            lag = lags[tap, channel]
            outside = lag < int(strict) or (reach is not None and lag >= reach) or lag > step
            if placed[tap, channel] and not outside:
                read = np.float64(x[..., step - lag, channel])
                if dense:
                    y[..., step, :] += read[..., None] * weights[tap, channel]
                else:
                    y[..., step, channel] += read * weights[tap, channel]
    return y
