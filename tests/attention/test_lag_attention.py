from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import attention
from tests.folding import folded
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

from .examples import HEADS, LAGS, LENGTH, PLACED, sequences
from .oracle import attend, counts_of

CASES = [(near, groups) for near in (0, 2) for groups in (1, 2, 4)]


@folded
def found():
    return {
        (near, groups): (
            partial(attention.lag_attention, near=near),
            *sequences(groups),
            LAGS,
            PLACED,
        )
        for near, groups in CASES
    }


@pytest.mark.parametrize(("near", "groups"), CASES)
def test_it_is_dense_attention_with_everything_else_masked(near, groups):
    expected = attend(*sequences(groups), counts_of(LENGTH, LAGS, PLACED, near))
    assert_close(found(near, groups), expected, rtol=1e-5, atol=1e-6)


def test_all_lags_are_causal_attention():
    query, key, _ = sequences()
    value = key[::-1]
    lags = np.tile(np.arange(LENGTH), (HEADS, 1))

    @jax.jit
    def run(*rows):
        dense = jax.nn.dot_product_attention(*rows, is_causal=True)
        near = attention.lag_attention(*rows, lags[:, :0], near=LENGTH)
        return dense, attention.lag_attention(*rows, lags), near

    dense, *both = run(query, key, value)
    for found in both:
        assert_close(found, dense, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_a_matrix_with_a_mask():
    query, key, value = sequences(2)
    counts = counts_of(LENGTH, LAGS, PLACED, 0)
    weights = np.random.default_rng(1).normal(size=(LENGTH, HEADS, value.shape[-1]))

    def dense(query, key, value):
        key, value = (jnp.repeat(array, HEADS // 2, axis=1) for array in (key, value))
        scores = jnp.einsum("thd,shd->hts", query, key) / np.sqrt(query.shape[-1])
        with np.errstate(divide="ignore"):
            scores = scores + np.log(counts)
        rows = counts.any(-1)[..., None]
        shares = jax.nn.softmax(jnp.where(rows, scores, 0), axis=-1) * rows
        return jnp.einsum("hts,she->the", shares, value)

    def of_lags(query, key, value):
        return attention.lag_attention(query, key, value, LAGS, PLACED)

    def slopes(function):
        return jax.grad(lambda *rows: jnp.sum(function(*rows) * weights), (0, 1, 2))

    found, expected = jax.jit(lambda *rows: (slopes(of_lags)(*rows), slopes(dense)(*rows)))(
        query, key, value
    )
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_nothing_reaches_back_in_time():
    query, _, _ = sequences()

    def of(rows):
        return attention.lag_attention(rows, 2 * rows, rows[..., :2], LAGS, PLACED, near=1)

    slopes = np.abs(jax.jit(jax.jacrev(of))(query)).sum((1, 2, 4, 5))
    assert (np.triu(slopes, 1) == 0).all()
    assert (np.diag(slopes) > 0).all()


def test_without_the_present_the_diagonal_is_empty():
    _, key, value = sequences()
    lags = np.array([[1, 3]] * HEADS)
    slopes = jax.jit(jax.jacrev(lambda value: attention.lag_attention(key, key, value, lags)))(
        value
    )
    reached = np.abs(slopes).sum((1, 2, 4, 5)) > 0
    t, s = np.indices(reached.shape)
    assert (reached == np.isin(t - s, (1, 3))).all()


def test_rows_with_nothing_to_attend_to_are_0_and_have_no_slope():
    query, key, value = sequences()
    lags, placed = np.full((HEADS, 2), 5), np.array([[True, False]] * HEADS)
    # What is never read may be anything, and so may what an empty slot would read.
    key[-5:], value[-5:] = np.nan, np.nan

    def total(*rows):
        out = attention.lag_attention(*rows, lags, placed)
        return out.sum(), out

    slopes = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))
    (whole, out), (of_query, of_key, of_value) = slopes(query, key, value)
    assert np.isfinite(whole)
    assert (out[:5] == 0).all()
    assert_close(out[5:], value[:-5], rtol=0, atol=0)
    assert (of_query[:5] == 0).all()
    assert (of_key[-5:] == 0).all()
    assert (of_value[:-5] == 1).all()
    assert (of_value[-5:] == 0).all()


def test_a_head_without_taps_gives_0():
    query, key, value = sequences()
    none = np.zeros((HEADS, 0), int)
    assert (jax.jit(attention.lag_attention)(query, key, value, none) == 0).all()


def test_an_empty_sequence_gives_an_empty_result():
    rows = sequences(length=0)
    attend_nothing = jax.jit(partial(attention.lag_attention, near=2))
    assert attend_nothing(*rows, LAGS).shape == (0, HEADS, 2)


def test_a_prefix_knows_nothing_of_what_follows():
    rows = sequences()

    @jax.jit
    def both(*rows):
        whole = attention.lag_attention(*rows, LAGS, PLACED)
        return whole[:7], attention.lag_attention(*(array[:7] for array in rows), LAGS, PLACED)

    assert_close(*both(*rows), rtol=1e-6, atol=1e-7)


def test_first_axes_are_a_batch():
    rows = sequences(2, 2, 3)
    one = partial(attention.lag_attention, lags=LAGS, placed=PLACED, near=1)
    both = jax.jit(lambda *rows: (one(*rows), jax.vmap(jax.vmap(one))(*rows)))
    assert_close(*both(*rows), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["uint8", "int64", "uint32"])
def test_lags_are_integers_of_any_kind(kind):
    zeros = np.zeros((300, 1, 1), np.float32)
    with jax.enable_x64(kind == "int64"):
        lags = np.array([[250]]).astype(kind)
        value = np.arange(300.0)[:, None, None]
        out = jax.jit(attention.lag_attention)(zeros, zeros, value, lags)
    assert_close(out[:, 0, 0], np.maximum(np.arange(300) - 250, 0), rtol=0, atol=0)


def test_a_lag_beyond_32_bits_counts_for_nothing():
    rows = np.ones((4, 1, 1), np.float32)
    with jax.enable_x64(True):
        out = jax.jit(attention.lag_attention)(rows, rows, rows, np.array([[2**32 + 1]]))
        assert (np.asarray(out) == 0).all()


def test_the_memory_is_not_that_of_all_pairs_nor_of_copies():
    length, lags = 2**13, np.arange(0, 8000, 500)[None]
    shape = jax.ShapeDtypeStruct((length, 1, 16), np.float32)
    step = jax.grad(lambda *rows: attention.lag_attention(*rows, lags).sum(), (0, 1, 2))
    program = jax.jit(step).lower(shape, shape, shape).compile()
    rows, scores = 4 * length * 16, 4 * length * lags.size
    assert program.memory_analysis().temp_size_in_bytes < 10 * rows + 4 * scores


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"key": np.zeros((LENGTH, 3, 3))}, "(..., T, g, d)"),
        ({"value": np.zeros((LENGTH + 1, HEADS, 2))}, "(..., T, g, e)"),
        ({"query": np.zeros((HEADS, 3))}, "(..., T, h, d)"),
        ({"query": "abc"}, "real numbers"),
        ({"lags": LAGS[:2]}, "(4, any)"),
        ({"lags": LAGS.astype(float)}, "integers"),
        ({"placed": PLACED[:, :2]}, "(4, 3)"),
        ({"placed": PLACED.astype(int)}, "flags"),
        ({"near": -1}, "at least 0"),
        ({"scale": np.nan}, "one number"),
    ],
)
def test_wrong_arguments_are_told(change, expected):
    query, key, value = sequences()
    right = {"query": query, "key": key, "value": value, "lags": LAGS, "placed": PLACED}

    def call():
        jax.eval_shape(lambda: attention.lag_attention(**(right | change)))

    assert_names_itself_and_its_cure(call, next(iter(change)), expected, "")
