"""Rows of the room ``attention``."""

import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import attention
from tests.table.columns import Table
from tests.table.examples import between, eighths
from tests.table.row import Room, Row

STEPS, HEADS = 5, 2
QUERY = eighths(STEPS, HEADS, 2)
KEY = eighths(STEPS, 1, 2, seed=1)
VALUE = eighths(STEPS, 1, 3, seed=2)
COTANGENT = eighths(STEPS, HEADS, 3, seed=3)
LAGS = np.array([[1, 3], [2, 0]], np.int32)
PLACED = np.array([[True, True], [True, False]])


def stepped(query, key, value):
    """The last step, after a cache of the others."""
    query, key, value = (jnp.asarray(array) for array in (query, key, value))
    cache = attention.lag_attention_cache(key[:-1], value[:-1], reach=STEPS)
    out, cache = attention.lag_attention_step(
        cache, query[0], key[-1], value[-1], LAGS, placed=PLACED, near=1
    )
    return out, cache.keys, cache.values


MEANS = between(STEPS * HEADS * 2, 1, seed=5).reshape(STEPS, HEADS, 2)
MEANS[0] = 0.25
VARIANCES = eighths(STEPS, HEADS, 2, low=0.5, high=3.0, seed=6)

ROWS = [
    Row(
        "pointer_attention",
        lambda random_key, *rows: attention.pointer_attention(
            random_key, *rows[:4], variances=rows[4], near=1, num_local=2
        ),
        (QUERY, KEY, VALUE, MEANS, VARIANCES),
        keyed=True,
        wide=False,
    ),
    Row(
        "pointer_attention_hard",
        attention.pointer_attention_hard,
        (QUERY, KEY, VALUE, MEANS),
        wide=False,
    ),
    Row(
        "lag_attention",
        lambda query, key, value, lags: attention.lag_attention(
            query, key, value, lags, PLACED, near=1
        ),
        (QUERY, KEY, VALUE, LAGS),
        wide=False,
        outside={3: (STEPS,)},
    ),
    Row(
        "lag_attention_gains",
        lambda query, key, value, lags, cotangent: attention.lag_attention_gains(
            query, key, value, lags, cotangent, placed=PLACED, reach=4, near=1, block=2
        ),
        (QUERY, KEY, VALUE, LAGS, COTANGENT),
        outside={3: (STEPS,)},
    ),
    Row(
        "pursue_lags",
        lambda gains, lags: attention.pursue_lags(gains, (lags, PLACED), near=1, min_z=1.0),
        (eighths(HEADS, 9, seed=4), LAGS),
        exact=None,
        skips={"outside": "a lag outside keeps its slot, and is told as it came"},
        dropped="a lag of gain NaN is never placed, and lags are whole numbers",
    ),
    Row(
        "probe_attention",
        lambda query, key, value, cotangent, lags: attention.probe_attention(
            *(jnp.asarray(array)[None] for array in (query, key, value, cotangent)),
            (lags, PLACED),
            reach=4,
            min_z=None,
        ),
        (QUERY, KEY, VALUE, COTANGENT, LAGS),
        exact=None,
        skips={"outside": "a lag outside keeps its slot, and is told as it came"},
        dropped="a lag of gain NaN is never placed, and lags are whole numbers",
    ),
    Row("lag_attention_step, lag_attention_cache", stepped, (QUERY[:1], KEY, VALUE), wide=False),
]

EXCEPTIONS = {
    "LagCache": "a type",
    "LagTaps": "a type",
    "empty_lags": "no array goes in",
    "lag_importance": "evaluates a loss of the caller for sets of lags; its own tests do",
    "swap_lag": "evaluates a loss of the caller for sets of lags; its own tests do",
}


class TestAttention(Table):
    room = Room(attention, ROWS, EXCEPTIONS)
