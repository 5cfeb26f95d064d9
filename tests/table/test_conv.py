"""Rows of the room ``conv``."""

import numpy as np

from sparse_hyper_jax import conv, ops
from tests.table.columns import Table
from tests.table.examples import BATCH, between, eighths, integers
from tests.table.row import Room, Row

STEPS, CHANNELS, OUT = 6, 3, 2
X = eighths(STEPS, CHANNELS)
LAGS = integers(0, 2, 4)
SHARED = eighths(3, CHANNELS, OUT, seed=1)
OWN = np.array([[0, 1, 5], [2, 2, 4]], np.int32)
PLANE = eighths(4, 3, CHANNELS)
OFFSETS = np.array([[0, 0], [-1, 1], [1, -1]], np.int32)
INSIDE = {"outside": "offset -1 lies inside: the tests of the room try others"}
HALVES = {
    "float16": "the past keeps its dtype, the output is wide: see the tests of the room",
    "bfloat16": "the past keeps its dtype, the output is wide: see the tests of the room",
}
NO_FLOATS = "taps are integers and flags; a gain of NaN places none"
VARIANCES = eighths(STEPS, 3, low=0.5, high=3.0, seed=5)
OF_CELLS = between(24, 2, seed=4).reshape(4, 3, 2, 2) - 2
OF_CELLS[0, 0, 0] = 0.25
PROBE = {"reach": 5, "min_z": None}
OWN_SLOTS = ops.Taps(np.zeros((CHANNELS, 1, 1), np.int32), np.zeros((CHANNELS, 1), bool))

ROWS = [
    Row("lag_conv", conv.lag_conv, (X, SHARED, LAGS), outside={2: (STEPS,)}),
    Row(
        "lag_conv, lags of channels",
        lambda x, weights, lags: conv.lag_conv(x, weights, lags, reach=STEPS),
        (X, SHARED[:2, :, 0], OWN),
        outside={2: (STEPS,)},
    ),
    Row(
        "lag_conv, a batch of its own",
        lambda x, weights, lags: conv.lag_conv(x, weights, lags, strict=True),
        (eighths(BATCH, STEPS, CHANNELS), SHARED, integers(1, 2, 4)),
        shared=(1, 2),
        outside={2: (STEPS,)},
    ),
    Row(
        "lag_gains",
        lambda x, cotangent: conv.lag_gains(x, cotangent, 4),
        (X, eighths(STEPS, OUT, seed=2)),
    ),
    Row(
        "lag_gains, a batch of its own",
        lambda x, cotangent: conv.lag_gains(x, cotangent, 4),
        (eighths(BATCH, STEPS, CHANNELS), eighths(BATCH, STEPS, OUT, seed=2)),
        shared=(),
    ),
    Row(
        "lag_gains, per channel",
        lambda x, cotangent: conv.lag_gains(x, cotangent, 8, sharing="channel", strict=True),
        (X, eighths(STEPS, CHANNELS, seed=2)),
    ),
    Row("autocovariance", lambda x: conv.autocovariance(x, 4), (X,)),
    Row(
        "lag_conv, one by one",
        lambda x, weights, lags: conv.lag_conv(x, weights, lags, one_by_one=True),
        (eighths(2, STEPS, CHANNELS), SHARED, LAGS),
        outside={2: (STEPS,)},
    ),
    Row(
        "lag_conv_step, LagStream",
        lambda past, x, weights, lags: conv.lag_conv_step(
            conv.LagStream(past, np.int32(2)), x, weights, lags
        ),
        (eighths(5, CHANNELS), eighths(CHANNELS, seed=3), SHARED, LAGS),
        wide=False,
        outside={3: (5,)},
        skips=HALVES,
    ),
    Row(
        "lag_conv_step, lags of channels",
        lambda past, x, weights, lags: conv.lag_conv_step(
            conv.LagStream(past, np.int32(0)), x, weights, lags
        )[1],
        (eighths(6, CHANNELS), eighths(CHANNELS, seed=3), SHARED[:2, :, 0], OWN),
        outside={3: (6,)},
        dropped={0: "the present takes the place of the first row"},
    ),
    Row(
        "linear_shares, soft_lag_conv, LagShares",
        lambda x, weights, means: conv.soft_lag_conv(x, weights, conv.linear_shares(means)),
        (X, SHARED, eighths(3, low=0.5, high=0.875)),
    ),
    Row(
        "gaussian_shares, soft_lag_conv",
        lambda key, x, weights, means, variances: conv.soft_lag_conv(
            x, weights, conv.gaussian_shares(key, means, variances, STEPS), reach=STEPS
        ),
        (X, SHARED, between(3, 1)[:, 0], eighths(3, low=0.5, high=3.0)),
        keyed=True,
    ),
    Row(
        "adaptive_conv",
        lambda key, *arrays: conv.adaptive_conv(key, *arrays, causal=True),
        (X, SHARED, -between(STEPS * 3, 1, seed=4).reshape(STEPS, 3), VARIANCES),
        keyed=True,
    ),
    Row(
        "adaptive_conv_hard, a plane",
        conv.adaptive_conv_hard,
        (PLANE, SHARED[:2], OF_CELLS),
    ),
    Row(
        "lag_kernel",
        lambda weights, lags: conv.lag_kernel(weights, lags, reach=STEPS),
        (SHARED, LAGS),
        outside={1: (STEPS,)},
    ),
    Row("offset_conv", conv.offset_conv, (PLANE, SHARED, OFFSETS), outside={2: (4,)}, skips=INSIDE),
    Row(
        "offset_conv, wrap",
        lambda x, weights, offsets: conv.offset_conv(x, weights, offsets, window=(3, 3), wrap=True),
        (PLANE, SHARED[..., 0], OFFSETS),
        outside={2: (2,)},
        skips=INSIDE,
    ),
    Row(
        "offset_gains",
        lambda x, cotangent: conv.offset_gains(x, cotangent, (3, 4)),
        (PLANE, eighths(4, 3, OUT, seed=2)),
    ),
    Row(
        "offset_gains, a torus per channel",
        lambda x, cotangent: conv.offset_gains(x, cotangent, (3, 2), sharing="channel", wrap=True),
        (PLANE, eighths(4, 3, CHANNELS, seed=2)),
    ),
    Row(
        "offset_gains, a batch of its own",
        lambda x, cotangent: conv.offset_gains(x, cotangent, (3, 4)),
        (eighths(BATCH, 4, 3, CHANNELS), eighths(BATCH, 4, 3, OUT, seed=2)),
        shared=(),
    ),
    Row("offset_autocovariance", lambda x: conv.offset_autocovariance(x, (2, 2)), (PLANE,)),
    Row(
        "offset_kernel",
        lambda weights, offsets: conv.offset_kernel(weights, offsets, window=(3, 3)),
        (SHARED, OFFSETS),
        outside={1: (2,)},
        skips=INSIDE,
    ),
    Row(
        "window_offsets",
        lambda positions: conv.window_offsets(positions, (3, 4)),
        (OFFSETS,),
        exact=None,
        skips={"outside": "it moves integers and reads nothing at them"},
    ),
    Row(
        "probe_lags",
        lambda x, cotangent: conv.probe_lags(x, cotangent, ops.empty_taps(2), 2, **PROBE),
        (X, eighths(STEPS, OUT, seed=2)),
        exact=None,
        dropped=NO_FLOATS,
    ),
    Row(
        "probe_offsets",
        lambda x, cotangent: conv.probe_offsets(
            x, cotangent, ops.empty_taps(1, rank=2), window=(2, 3), min_z=None
        ),
        (PLANE, eighths(4, 3, OUT, seed=2)),
        exact=None,
        dropped=NO_FLOATS,
    ),
    Row(
        "probe_delays",
        lambda x, cotangent: (
            conv.probe_delays(x, cotangent, OWN_SLOTS, **PROBE),
            conv.probe_delays(x, cotangent, OWN_SLOTS, **PROBE, mixed=True),
        ),
        (X, eighths(STEPS, CHANNELS, seed=2)),
        exact=None,
        dropped=NO_FLOATS,
    ),
    Row(
        "start_weights",
        lambda key, weights: conv.start_weights(
            key, weights, np.array([True, False, False]), np.array([True, True, False])
        ),
        (SHARED,),
        keyed=True,
        wide=False,
        redraws=True,
    ),
]

EXCEPTIONS = {
    "clear_moments": "of states of optimizers, which are trees of any kind",
    "SHARINGS": "a tuple of names, each of which a row tries",
    "init_lag_stream": "makes zeros of given lengths",
}


class TestConv(Table):
    room = Room(conv, ROWS, EXCEPTIONS)
