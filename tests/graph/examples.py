"""A small graph with padding, a loop and an isolated node, and the matrix it stands for."""

import numpy as np

NODES, FEATURES = 6, 3
SENDERS = np.array([1, 2, 0, 3, 3, -1, 2, 4], np.int32)
RECEIVERS = np.array([0, 0, 1, 1, 3, 2, 9, 3], np.int32)  # 9 is outside, node 5 is alone
KEPT = np.array([1, 1, 1, 1, 1, 0, 0, 1], bool)
VALUES = np.array([0.5, 1.0, 2.0, 0.25, 1.5, np.nan, np.nan, 3.0], np.float32)
RNG = np.random.default_rng(0)
H = RNG.normal(size=(NODES, FEATURES)).astype(np.float32)
COTANGENT = RNG.normal(size=(NODES, FEATURES)).astype(np.float32)


def dense(values=VALUES, senders=SENDERS, receivers=RECEIVERS, kept=KEPT):
    """The matrix ``(n, n)``, rows receive."""
    matrix = np.zeros((NODES, NODES))
    np.add.at(matrix, (receivers[kept], senders[kept]), values[kept])
    return matrix


def slots():
    """Edges in slots, of which some are empty, and the flags of the matrix."""
    senders = np.array([[1, 2], [0, 3], [0, 0], [4, 0], [2, 5], [0, 0]])
    placed = np.array([[1, 1], [1, 1], [0, 0], [1, 0], [1, 1], [0, 1]], bool)
    there = np.zeros((NODES, NODES), bool)
    for node, slot in zip(*np.nonzero(placed), strict=True):
        there[node, int(senders[node, slot])] = True
    return senders, placed, there


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)
