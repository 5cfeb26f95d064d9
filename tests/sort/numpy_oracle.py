"""Soft sorts of weighted lists in NumPy, double precision, with every matrix written out."""

import numpy as np


def matrix(keys, weights, certainty, *, descending=False):
    """Rows, one per sorted place of an element that counts, over all elements."""
    keys = np.asarray(keys, np.float64) * (-1 if descending else 1)
    present = np.flatnonzero(weights)
    places = keys[present[np.argsort(keys[present], kind="stable")]]
    scores = -certainty * np.abs(places[:, None] - keys[None, :])
    kernel = np.exp(scores) * weights
    rows = np.zeros((len(keys), len(keys)))
    rows[: len(present)] = kernel / kernel.sum(1, keepdims=True)
    return rows


def quantile(values, weights, q):
    """Read sorted values between the middles of their weights."""
    middles = np.cumsum(weights) - weights / 2
    wanted = middles[0] + q * (middles[-1] - middles[0])
    return np.interp(wanted, middles, values)


def soft_quantile(keys, weights, q, certainty):
    present = weights > 0
    keys, weights = np.asarray(keys, np.float64)[present], weights[present]
    values = matrix(keys, weights, certainty) @ keys
    return quantile(values, weights[np.argsort(keys)], q)


def ndcg(placed, gains, k):
    """Discounted gain of gains as they are placed, as a share of the best."""
    discounts = 1 / np.log2(np.arange(len(gains)) + 2)
    discounts[len(gains) if k is None else k :] = 0
    return (placed * discounts).sum() / (np.sort(gains)[::-1] * discounts).sum()
