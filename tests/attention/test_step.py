from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sparse_hyper_jax import attention
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

from .examples import HEADS, LAGS, LENGTH, PLACED, sequences

SHORT = np.where(LAGS > 7, 6, LAGS)
LONG = 30


@partial(jax.jit, static_argnames=("reach", "start"))
def stepped(rows, *, reach, start=0):
    """All steps from ``start`` on, of sequences whose axis of time is the third last."""
    cache = attention.lag_attention_cache(
        *(array[..., :start, :, :] for array in rows[1:]), reach=reach
    )

    def step(cache, row):
        out, cache = attention.lag_attention_step(cache, *row, SHORT, placed=PLACED, near=2)
        return cache, out

    moved = [jnp.moveaxis(array, -3, 0)[start:] for array in rows]
    cache, out = lax.scan(step, cache, moved)
    return jnp.moveaxis(out, 0, -3), cache


@jax.jit
def whole_pass(rows, lags):
    return attention.lag_attention(*rows, lags, PLACED, near=2)


@pytest.mark.parametrize("start", [0, 3, 20])
def test_steps_are_the_whole_pass(start):
    rows = sequences(2, 3, length=LONG)
    out, cache = stepped(rows, reach=8, start=start)
    assert_close(out, whole_pass(rows, SHORT)[:, start:], rtol=1e-5, atol=1e-6)
    assert cache.slot.tolist() == [LONG % 8 if start < 8 else (LONG - start) % 8] * 3
    assert cache.filled.tolist() == [8] * 3


def test_a_larger_cache_changes_nothing():
    rows = sequences(length=LONG)
    assert_close(stepped(rows, reach=40)[0], stepped(rows, reach=8)[0], rtol=1e-5, atol=1e-6)


def test_lags_beyond_the_cache_count_for_nothing():
    rows = sequences(length=LONG)
    out, _ = stepped(rows, reach=4)
    lags = np.where(SHORT < 4, SHORT, -1)
    assert_close(out, whole_pass(rows, lags), rtol=1e-5, atol=1e-6)


def test_what_is_not_read_may_be_anything():
    _, key, value = sequences(length=4)
    key[:], value[:] = np.nan, np.nan
    row = np.ones((HEADS, 3), np.float32)

    @jax.jit
    def run(key, value):
        cache = attention.lag_attention_cache(key, value, reach=6)
        lags = np.full((HEADS, 1), 0)
        return attention.lag_attention_step(cache, row, row, row[:, :2], lags)[0]

    assert_close(run(key, value), np.ones((HEADS, 2)), rtol=0, atol=0)


def test_the_cache_has_the_types_of_keys_and_values():
    shapes = [jax.ShapeDtypeStruct((5, 2, 3), kind) for kind in (jnp.bfloat16, jnp.int32)]
    cache = jax.eval_shape(partial(attention.lag_attention_cache, reach=4), *shapes)
    assert cache.keys.dtype == jnp.bfloat16
    assert cache.values.dtype == jnp.float32
    assert cache.slot.dtype == cache.filled.dtype == jnp.int32


def test_wrong_arguments_are_told():
    query, key, value = sequences()
    empty = attention.LagCache(
        *(np.zeros((4, *array.shape[1:]), np.float32) for array in (key, value)),
        *np.zeros((2,), np.int32),
    )
    row = query[0], key[0], value[0]

    def refuse(call, *words):
        assert_names_itself_and_its_cure(lambda: jax.eval_shape(call), *words)

    step = attention.lag_attention_step
    refuse(lambda: step(tuple(empty), *row, LAGS), "cache=", "LagCache", "")
    refuse(lambda: step(empty, query[0], key[0, :2], value[0, :2], LAGS), "cache.keys", "2, 3", "")
    refuse(lambda: step(empty, *row[:2], key[0], LAGS), "cache.values", "(4, 4, 3)", "")
    refuse(lambda: step(empty, *row, LAGS[:2]), "lags", "(4, any)", "")
    refuse(lambda: step(empty, row[0], row[1], 1.0, LAGS), "value", "(..., h, d)", "")
    refuse(lambda: step(empty, *row, LAGS, near=5), "near=5 of a cache of reach=4", "most", "lower")
    cache = attention.lag_attention_cache
    refuse(lambda: cache(key, value, reach=0), "reach=0", "at least 1", "")
    refuse(lambda: cache(key, value[1:], reach=2), "key and value", "(..., T, g, d)", "")
    assert len(key) == LENGTH
