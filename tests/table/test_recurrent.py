"""Rows of the room ``recurrent``."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import recurrent
from sparse_hyper_jax.precision import at_least_float32
from tests.table.columns import Table
from tests.table.examples import eighths, integers
from tests.table.row import Room, Row

STEPS, UNITS = 3, 2
FACTORS = np.array([0.5, -0.5], np.float32)
STATE = eighths(UNITS, low=0.5, high=1.5)
INPUTS = eighths(STEPS, UNITS, seed=1)
SEQUENCE = (FACTORS, STATE, INPUTS)
WEIGHTS = np.array([0.5, 1.0, 0.75], np.float32)
LISTS = {"lists": "in a tree of states, parameters or inputs a list is a tree"}
ROUNDED = {"bfloat16": "gradients of parameters of 16 bits have 16 bits, before they are compared"}


def decay(params, h, x):
    """Exact in 16 bits for a few steps."""
    return params * h + x


def squares(params, h):
    wide = at_least_float32(h)
    return jnp.sum(wide * wide) / 2


def of_two_steps(rule, key, params, h, x):
    """Loss and gradient of the second of two steps, wide."""
    keys = (None, None) if key is None else jax.random.split(key)
    trace = rule.init(params, h)
    for own in keys:
        h, loss, gradient, trace = rule.step(trace, params, h, x, partial(squares, params), key=own)
    return loss, at_least_float32(gradient)


def truncated(params, h, xs):
    return recurrent.truncated_loss(decay, squares, params, h, xs, lag=2)


def bias(params, h, xs):
    def loss_of_lag(params, lag):
        return recurrent.truncated_loss(decay, squares, params, h, xs, lag=lag)

    return recurrent.measured_bias(loss_of_lag, params, lag=1, reference=STEPS)


def drawn(key, probabilities):
    return recurrent.artbp_weights(key, probabilities).weights


ROWS = [
    Row(
        "lag_gradients",
        lambda *sequence: recurrent.lag_gradients(decay, squares, *sequence),
        SEQUENCE,
        wide=False,
        skips=LISTS,
    ),
    Row(
        "lag_norms",
        lambda gradients: tuple(recurrent.lag_norms(gradients, rows=4)),
        (eighths(STEPS, 4, 2, seed=2),),
        skips=LISTS,
    ),
    Row(
        "bias_by_lag",
        lambda *sequence: recurrent.bias_by_lag(decay, squares, *sequence)[:-1],
        SEQUENCE,
        skips=LISTS | ROUNDED,
    ),
    Row(
        "measured_bias",
        bias,
        SEQUENCE,
        exact=False,
        skips=LISTS | ROUNDED,
    ),
    Row("truncated_loss", truncated, SEQUENCE, exact=False, skips=LISTS),
    Row(
        "weighted_scan",
        lambda *arguments: recurrent.weighted_scan(decay, *arguments),
        (*SEQUENCE, WEIGHTS),
        wide=False,
        exact=False,
        skips=LISTS,
    ),
    Row(
        "tbptt_scan",
        lambda *sequence: recurrent.tbptt_scan(decay, *sequence, lag=2),
        SEQUENCE,
        wide=False,
        exact=False,
        skips=LISTS,
    ),
    Row(
        "window_scan, tbptt_windows",
        lambda params, h, xs, steps: recurrent.window_scan(decay, params, h, xs, steps, carry=1),
        (*SEQUENCE, integers(0, 1, 2)),
        wide=False,
        exact=False,
        outside={3: (STEPS,)},
        skips=LISTS,
    ),
    Row(
        "checkpointed_scan",
        lambda params, h, xs: recurrent.checkpointed_scan(
            lambda h, x: (decay(params, h, x), h * x), h, xs, segments=2
        ),
        SEQUENCE,
        wide=False,
        skips=LISTS,
    ),
    Row(
        "artbp_weights",
        drawn,
        (eighths(5, low=0.25, high=0.75),),
        keyed=True,
        redraws=True,
        exact=False,
    ),
    Row(
        "rtrl",
        lambda *arguments: of_two_steps(recurrent.rtrl(decay), None, *arguments),
        (FACTORS, STATE, INPUTS[0]),
        exact=None,
        skips=LISTS,
    ),
    Row(
        "snap1",
        lambda *arguments: of_two_steps(recurrent.snap1(decay), None, *arguments),
        (FACTORS, STATE, INPUTS[0]),
        exact=None,
        skips=LISTS,
    ),
    Row(
        "uoro",
        lambda key, *arguments: of_two_steps(recurrent.uoro(decay), key, *arguments),
        (FACTORS, STATE, INPUTS[0]),
        keyed=True,
        redraws=True,
        exact=None,
        skips=LISTS,
    ),
]

ON_THE_HOST = "chooses from known numbers, outside of jit; its own tests run it whole"
EXCEPTIONS = {
    "LAG_BUCKETS": "a table of lags",
    "BiasBound": "a type",
    "Cell": "a type",
    "LagNorms": "a type",
    "OnlineRule": "a type",
    "OnlineStep": "a type",
    "RandomTruncation": "a type",
    "Windows": "a type",
    "bias_bound": ON_THE_HOST,
    "choose_lag": ON_THE_HOST,
    "fit_decay": ON_THE_HOST,
}


class TestRecurrent(Table):
    room = Room(recurrent, ROWS, EXCEPTIONS)
