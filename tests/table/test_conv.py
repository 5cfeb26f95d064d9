"""Rows of the room ``conv``."""

import numpy as np

from sparse_hyper_jax import conv
from tests.table.columns import Table
from tests.table.examples import BATCH, eighths, integers
from tests.table.row import Room, Row

STEPS, CHANNELS, OUT = 6, 3, 2
X = eighths(STEPS, CHANNELS)
LAGS = integers(0, 2, 4)
SHARED = eighths(3, CHANNELS, OUT, seed=1)
OWN = np.array([[0, 1, 5], [2, 2, 4]], np.int32)

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
]

EXCEPTIONS = {"SHARINGS": "a tuple of names, each of which a row tries"}


class TestConv(Table):
    room = Room(conv, ROWS, EXCEPTIONS)
