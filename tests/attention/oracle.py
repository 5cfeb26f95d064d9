"""Attention at lags through a matrix of all pairs of positions, in NumPy."""

import numpy as np


def weights_of(scores, counts):
    """Softmax over the last axis, in which an entry counts as often as ``counts`` says."""
    present = counts > 0
    highest = np.max(np.where(present, scores, -np.inf), axis=-1, keepdims=True)
    highest = np.where(np.isfinite(highest), highest, 0)
    powers = np.where(present, np.exp(np.where(present, scores - highest, 0)) * counts, 0)
    total = powers.sum(-1, keepdims=True)
    return np.divide(powers, total, out=np.zeros_like(powers), where=total > 0)


def counts_of(length, lags, placed, near):
    """How often each head names each pair of positions, ``(h, T, T)``."""
    counts = np.zeros((len(lags), length, length))
    for head, own in enumerate(lags):
        named = list(range(near)) + [u for u, on in zip(own, placed[head], strict=True) if on]
        for t in range(length):
            for u in named:
                if 0 <= u <= t:
                    counts[head, t, t - u] += 1
    return counts


def attend(query, key, value, counts, scale=None):
    """``(T, h, d)``, ``(T, g, d)``, ``(T, g, e)`` and counts ``(h, T, T)`` to ``(T, h, e)``."""
    query, key, value = (np.asarray(array, np.float64) for array in (query, key, value))
    shared = query.shape[1] // key.shape[1]
    key, value = (np.repeat(array, shared, axis=1) for array in (key, value))
    scale = 1 / np.sqrt(query.shape[-1]) if scale is None else scale
    scores = scale * np.einsum("thd,shd->hts", query, key)
    return np.einsum("hts,she->the", weights_of(scores, counts), value)
