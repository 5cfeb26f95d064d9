from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import attention
from tests.folding import folded
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

from .examples import HEADS, LAGS, LENGTH, PLACED, VALUE_WIDTH, sequences
from .oracle import attend, counts_of

COTANGENT = np.random.default_rng(3).normal(size=(LENGTH, HEADS, VALUE_WIDTH)).astype(np.float32)
SMALL = 1e-6
# reach below, at and beyond the length; blocks that divide it, do not, or are larger.
CASES = [(5, 4, 4), (LENGTH, 5, 2), (20, 128, 1)]


def by_differences(rows, counts, reach, weight, difference):
    """What a tap of the given weight at each lag adds to the output, times the cotangent."""
    before, gains = attend(*rows, counts), np.zeros((HEADS, reach))
    for u in range(min(reach, LENGTH)):
        more = weight * np.eye(LENGTH, k=-u)[None]
        change = (attend(*rows, counts + more) - before) / difference
        gains[:, u] = -np.sum(change * COTANGENT, axis=(0, 2))
    return gains


@folded
def found():
    table = {}
    for reach, block, groups in CASES:
        for inserted in (False, True):
            gains = partial(
                attention.lag_attention_gains,
                reach=reach,
                block=block,
                near=1,
                inserted=inserted,
                placed=PLACED,
            )
            table[reach, inserted] = (gains, *sequences(groups), LAGS, COTANGENT)
    return table


@pytest.mark.parametrize(("reach", "block", "groups"), CASES)
def test_gains_are_differences_by_a_multiplier_that_grows_from_0(reach, block, groups):
    counts = counts_of(LENGTH, LAGS, PLACED, 1)
    expected = by_differences(sequences(groups), counts, reach, SMALL, SMALL)
    assert_close(found(reach, False), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("reach", "block", "groups"), CASES)
def test_gains_of_what_is_inserted_are_the_change_by_a_whole_tap(reach, block, groups):
    counts = counts_of(LENGTH, LAGS, PLACED, 1)
    expected = by_differences(sequences(groups), counts, reach, 1, 1)
    assert_close(found(reach, True), expected, rtol=1e-4, atol=1e-5)


def test_gains_of_matrices_are_those_of_all_pairs_of_features():
    rows, counts = sequences(2), counts_of(LENGTH, LAGS, PLACED, 1)
    directions = np.random.default_rng(4).normal(size=(LENGTH, HEADS, 3)).astype(np.float32)

    @jax.jit
    def run(rows):
        gains = attention.lag_attention_gains(
            *rows, LAGS, directions, placed=PLACED, near=1, reach=5, block=5, matrices=True
        )
        plain = attention.lag_attention_gains(*rows, LAGS, COTANGENT, reach=5)
        whole = attention.lag_attention_gains(*rows, LAGS, COTANGENT, reach=5, matrices=True)
        return gains, plain, jnp.trace(whole, axis1=-2, axis2=-1)

    gains, plain, traces = run(rows)
    before, expected = attend(*rows, counts), np.zeros((HEADS, 5, VALUE_WIDTH, 3))
    for u in range(5):
        more = SMALL * np.eye(LENGTH, k=-u)[None]
        change = (attend(*rows, counts + more) - before) / SMALL
        expected[:, u] = -np.einsum("thc,thd->hcd", change, directions)
    assert_close(gains, expected, rtol=1e-4, atol=1e-4)
    # Those of values as they are lie on the diagonal.
    assert_close(plain, traces, rtol=1e-4, atol=1e-5)


def test_where_nothing_is_live_a_tap_takes_the_whole_row():
    rows = sequences()
    expected = by_differences(rows, np.zeros((HEADS, LENGTH, LENGTH)), 6, 1, 1)
    none = partial(attention.lag_attention_gains, lags=LAGS[:, :0], cotangent=COTANGENT, reach=6)
    both = jax.jit(lambda *rows: [none(*rows, inserted=inserted) for inserted in (False, True)])
    for gains in both(*rows):
        assert_close(gains, expected, rtol=1e-4, atol=1e-5)


def test_a_batch_has_gains_of_every_sequence():
    rows = sequences(2, 3)
    cotangent = np.stack([COTANGENT, 2 * COTANGENT, -COTANGENT])
    gains = partial(attention.lag_attention_gains, reach=4, placed=PLACED)

    @jax.jit
    def both(*arrays):
        of_one = jax.lax.map(lambda its: gains(*its[:3], LAGS, its[3]), arrays)
        return gains(*arrays[:3], LAGS, arrays[3]), of_one

    whole, alone = both(*rows, cotangent)
    assert whole.shape == (3, HEADS, 4)
    assert_close(whole, alone, rtol=1e-5, atol=1e-5)


def test_logits_far_above_those_of_the_taps_give_finite_gains():
    query = np.full((LENGTH, 1, 1), 30, np.float32)
    key = np.where(np.arange(LENGTH) == 4, 30, -30)[:, None, None].astype(np.float32)
    value = np.ones((LENGTH, 1, 1), np.float32)
    gains = partial(attention.lag_attention_gains, query, key, value, [[1]], value, reach=6)
    both = jax.jit(lambda: [gains(inserted=inserted) for inserted in (False, True)])
    assert np.isfinite(both()).all()


def test_memory_is_that_of_a_block():
    length, reach = 4096, 1024
    rows = [jax.ShapeDtypeStruct((length, 1, 8), np.float32)] * 3
    gains = partial(attention.lag_attention_gains, lags=np.array([[3]]), reach=reach, block=32)
    program = jax.jit(lambda *rows: gains(*rows[:3], cotangent=rows[3])).lower(*rows, rows[0])
    used = program.compile().memory_analysis().temp_size_in_bytes
    assert used < 4 * (8 * 32 * (32 + reach) + 16 * 8 * length)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"cotangent": COTANGENT[1:]}, "(12, 4, 2)"),
        (
            {name: np.zeros((0, 4, 2)) for name in ("query", "key", "value", "cotangent")},
            "one step",
        ),
        ({"reach": 0}, "at least 1"),
        ({"block": 0}, "at least 1"),
        ({"inserted": 1}, "True or False"),
    ],
)
def test_wrong_arguments_are_told(change, expected):
    query, key, value = sequences()
    right = {"query": query, "key": key, "value": value, "lags": LAGS, "cotangent": COTANGENT}

    def call():
        jax.eval_shape(lambda: attention.lag_attention_gains(**({"reach": 4} | right | change)))

    assert_names_itself_and_its_cure(call, next(iter(change)), expected, "")
