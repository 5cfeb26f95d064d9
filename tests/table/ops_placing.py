"""Rows of the room ``ops`` that say where tuples and taps are to be."""

import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import ops
from sparse_hyper_jax.types import ContinuousTuples, SparseEntries
from tests.table.examples import SHAPE, TUPLES, distinct, eighths, integers
from tests.table.row import Row

POINTS = integers([0, 0], [1, 2], [4, 3], [1, 2], [2, 2], [3, 0])
TAPS = integers([1], [0], [0])
CORRELATION = np.array([1, 0.5, 0.25, 0.125, 0.125, 0], np.float32)
COVARIANCE = np.array([[2, 0.5], [0.5, 1]], np.float32)

WHOLE = "the outputs are whole numbers"


def relocate(means, variances, values, gains, points):
    tuples = ContinuousTuples(means, variances, values)
    return ops.relocate(tuples, SparseEntries(points, gains), gains, SHAPE, limit=2)


def relocate_anywhere(means, variances, values, gains, leaving):
    tuples = ContinuousTuples(means, variances, values)
    return ops.relocate(tuples, None, gains, SHAPE, limit=2, leaving=leaving)


def leaving_gains(means, variances, values, gradients):
    tuples = ContinuousTuples(means, variances, values)
    return ops.leaving_gains(tuples, gradients, certainty=1.0, frozen=100.0, least=0.01)


def newly_placed(function):
    """Cells of the taps that a pursuit adds to one, which may lie outside."""

    def cells(*arguments):
        *gains, positions = arguments
        before = jnp.array([True, False, False])
        taps = function(*gains, ops.Taps(positions, before))
        return jnp.where(before[:, None], 0, taps.positions), taps.placed

    return cells


def residual_scores(gains, correlation):
    taps = ops.Taps(integers([1], [4]), np.array([True, False]))
    scores = ops.residual_scores(gains, taps, autocorrelation=correlation)
    return jnp.where(jnp.isinf(scores), 0, scores)


PLACING = [
    Row(
        "relocate",
        relocate,
        (*TUPLES, eighths(6), POINTS),
        dropped=WHOLE,
        exact=None,
        outside={4: SHAPE},
    ),
    Row(
        "relocate, all cells",
        relocate_anywhere,
        (*TUPLES, distinct(*SHAPE), distinct(len(TUPLES[2]))),
        dropped=WHOLE,
        exact=None,
    ),
    Row("leaving_gains", leaving_gains, (*TUPLES, eighths(3, len(TUPLES[2])))),
    Row(
        "pursue, empty_taps, in a plane",
        lambda scores: ops.pursue(scores, ops.empty_taps(4, rank=2), 3, apart=1),
        (distinct(*SHAPE),),
        dropped=WHOLE,
        exact=None,
    ),
    Row(
        "pursue",
        newly_placed(lambda scores, taps: ops.pursue(scores, taps, 1, apart=1, threshold=0.5)),
        (distinct(6), TAPS),
        dropped=WHOLE,
        exact=None,
        outside={1: (6,)},
    ),
    Row(
        "drop_taps",
        lambda importance: ops.drop_taps((TAPS + 1, np.ones(3, bool)), importance),
        (distinct(3),),
        dropped=WHOLE,
        exact=None,
    ),
    Row(
        "whiten_cotangent",
        lambda cotangent: ops.whiten_cotangent(cotangent, count=2),
        (eighths(6, 3),),
        exact=False,
    ),
    Row("decorrelated_gains", ops.decorrelated_gains, (eighths(3, 2, 2), COVARIANCE)),
    Row("residual_scores", residual_scores, (eighths(6, 2), CORRELATION)),
    Row("z_scores", ops.z_scores, (distinct(7, seed=1),)),
    Row(
        "pursue_gains",
        newly_placed(
            lambda gains, covariance, correlation, taps: ops.pursue_gains(
                gains, taps, 2, covariance=covariance, autocorrelation=correlation, min_z=None
            )
        ),
        (distinct(6, 2, 2), COVARIANCE, CORRELATION, TAPS),
        dropped=WHOLE,
        exact=None,
        outside={3: (6,)},
    ),
    Row(
        "pursue_halves",
        newly_placed(
            lambda first, second, correlation, taps: ops.pursue_halves(
                first, second, taps, 2, false_rate=0.5, autocorrelation=correlation
            )
        ),
        (distinct(6, 2), distinct(6, 2, seed=1), CORRELATION, TAPS),
        dropped=WHOLE,
        exact=None,
        outside={3: (6,)},
    ),
    Row(
        "split_half_p_values",
        lambda first, second: ops.split_half_p_values(first, second, ops.empty_taps(2)),
        (distinct(6, 2, seed=6), distinct(6, 2, seed=7)),
    ),
]
