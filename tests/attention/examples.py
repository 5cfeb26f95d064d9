"""Small sequences, and lags with all that may be odd about them."""

import numpy as np

LENGTH, HEADS, WIDTH, VALUE_WIDTH = 12, 4, 3, 2
# Twice the same, one at a near lag, one beyond the sequence, one below 0, one empty slot.
LAGS = np.array([[3, 5, 3], [1, 40, 7], [-1, 11, 2], [4, 0, 9]], np.int32)
PLACED = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 0, 1]], bool)


def sequences(key_heads=HEADS, *leading, length=LENGTH, seed=0):
    """Query, key and value."""
    draw = np.random.default_rng(seed).normal
    shapes = ((HEADS, WIDTH), (key_heads, WIDTH), (key_heads, VALUE_WIDTH))
    return tuple(draw(size=(*leading, length, *shape)).astype(np.float32) for shape in shapes)
