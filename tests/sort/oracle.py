"""Brute-force split and sort in plain numpy: every halving is listed, every matrix written out."""

from itertools import combinations

import numpy as np


def buckets(n, level):
    """Ranges of positions after ``level`` splits, by recursion."""
    ranges = [(0, n)]
    for _ in range(level):
        halves = []
        for start, stop in ranges:
            middle = start + (stop - start) // 2
            halves += [(start, middle), (middle, stop)]
        ranges = [(start, stop) for start, stop in halves if stop > start]
    return ranges


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def bucket_mixture(keys, certainty):
    """Matrix that halves one bucket, from products of probabilities as the paper states them."""
    m = len(keys)
    low = m // 2
    ordered = np.sort(keys)
    pivot = (ordered[max(low - 1, 0)] + ordered[low]) / 2
    chance = sigmoid(certainty * (keys - pivot))
    total, matrix = 0.0, np.zeros((m, m))
    for up in combinations(range(m), m - low):
        down = [i for i in range(m) if i not in up]
        weight = np.prod(chance[list(up)]) * np.prod(1 - chance[down])
        total += weight
        matrix[np.arange(m), [*down, *up]] += weight
    return matrix / total


def split_matrix(keys, level, certainty):
    keys = np.asarray(keys, np.float64)
    matrix = np.zeros((len(keys), len(keys)))
    for start, stop in buckets(len(keys), level):
        matrix[start:stop, start:stop] = bucket_mixture(keys[start:stop], certainty)
    return matrix


def sort_matrices(keys, certainty):
    """Matrices of all levels of the quicksort, each from the keys that the one before mixed."""
    keys, matrices = np.asarray(keys, np.float64), []
    for level in range((len(keys) - 1).bit_length()):
        matrices.append(split_matrix(keys, level, certainty))
        keys = matrices[-1] @ keys
    return matrices
