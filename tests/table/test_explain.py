"""Rows of the room ``explain``."""

import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import ContinuousTuples, SparseEntries, explain, ops
from tests.table.columns import Table
from tests.table.examples import between, distinct, eighths
from tests.table.row import Room, Row

MEANS, VALUES = between(4, 2), distinct(4)
SIZES = np.array([0.5, 1.0, 2.0, 0.25], np.float32)
POSITIONS = np.array([[3], [1], [3]], np.int32)
HOST = ("write_description", "match_positions", "Matching", "agreement")
PLACED = np.array([[True, True], [True, False], [True, True]])
WHOLE = {"outside": "positions count cells of no given space"}


def tuples_described(means, variances, values, sizes):
    tuples = ContinuousTuples(means, variances, values)
    return explain.describe_tuples(tuples, (5, 4), input_sizes=sizes)


def taps_described(positions, weights, sizes):
    taps = ops.Taps(positions, jnp.array([True, True, False]))
    return explain.describe_taps(taps, weights, input_sizes=sizes)


ROWS = [
    Row(
        "describe_tuples, Description",
        tuples_described,
        (MEANS, 0.5 + 0 * MEANS, VALUES, SIZES),
        dropped={3: "the size of a cell that no tuple reads"},
    ),
    Row(
        "describe_taps",
        taps_described,
        (POSITIONS, distinct(3, 2, 2), SIZES[:2]),
        skips=WHOLE,
    ),
    Row(
        "describe_edges",
        lambda senders, values, h: explain.describe_edges((senders, PLACED), values, h),
        (np.array([[1, 2], [0, 2], [1, 1]], np.int32), distinct(3, 2), distinct(3, 2, seed=1)),
        outside={0: (3,)},
    ),
    Row(
        "describe_edges, matrices",
        lambda senders, values, h: explain.describe_edges((senders, PLACED), values, h),
        (np.array([[1, 2], [0, 2], [1, 0]], np.int32), distinct(3, 2, 2, 1), distinct(3, 2)),
        outside={0: (3,)},
    ),
    Row(
        "ablate, Ablation",
        lambda values, x: explain.ablate(
            lambda values: jnp.sum(values * jnp.asarray(x, values.dtype)) ** 2, values
        ),
        (eighths(3), eighths(3, seed=1)),
    ),
    Row(
        "effective_points",
        explain.effective_points,
        (np.array([[0.25, 0.5], [0.75, 0.5]], np.float32),),
    ),
    Row(
        "to_edges, Edges",
        lambda indices, values: explain.to_edges(SparseEntries(indices, values), (2,), (3,)),
        (np.array([[0, 1], [1, 2], [1, 0]], np.int32), distinct(3)),
        wide=False,
        outside={0: (2, 3)},
    ),
]


class TestExplain(Table):
    room = Room(explain, ROWS, dict.fromkeys(HOST, "of known numbers, on the host"))
