import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import attention
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

from .examples import LENGTH, sequences
from .oracle import attend, counts_of

NOISE = np.random.default_rng(0).normal(size=(2, 60)).astype(np.float32)


pursue_lags = jax.jit(
    attention.pursue_lags, static_argnums=2, static_argnames=("near", "apart", "min_z")
)


def lags_of(taps):
    return [row[on].tolist() for row, on in zip(*map(np.array, taps), strict=True)]


def test_each_head_gets_the_lag_that_stands_out():
    gains = NOISE.copy()
    gains[0, 40], gains[1, 7] = 20, 30
    taps = pursue_lags(gains, attention.empty_lags(2, 3))
    assert lags_of(taps) == [[40], [7]]
    assert lags_of(pursue_lags(gains, taps)) == [[40], [7]]
    gains[0, 12] = 19
    assert lags_of(pursue_lags(gains, taps)) == [[40, 12], [7]]


def test_noise_places_nothing_unless_it_has_to():
    taps = attention.empty_lags(2, 3)
    assert lags_of(pursue_lags(NOISE, taps)) == [[], []]
    forced = pursue_lags(NOISE, taps, 2, min_z=None)
    expected = np.argsort(-NOISE, axis=1)[:, :2]
    assert lags_of(forced) == expected.tolist()


def test_near_lags_and_those_of_a_head_are_there_already():
    gains = NOISE.copy()
    gains[:, 2], gains[:, 30] = 100, 50
    taps = attention.LagTaps(jnp.array([[30, 0], [29, 0]]), jnp.array([[True, False]] * 2))
    found = pursue_lags(gains, taps, 2, near=3)
    assert lags_of(found) == [[30], [29, 30]]
    apart = pursue_lags(gains, taps, 2, near=3, apart=1)
    assert lags_of(apart) == [[30], [29]]
    # The position of an empty slot is 0, but lag 0 is not taken.
    gains[:, 0] = 200
    assert lags_of(pursue_lags(gains, taps)) == [[30, 0], [29, 0]]


def test_importance_is_the_rise_of_the_loss_without_a_lag():
    query, key, value = sequences()
    lags = np.array([[1, 3, 3], [0, 2, 5], [4, 6, 1], [2, 7, 0]], np.int32)
    placed = np.ones((4, 3), bool)
    placed[2, 1] = False
    target = np.random.default_rng(5).normal(size=value.shape)

    def loss(taps):
        out = attention.lag_attention(query, key, value, *taps)
        return jnp.mean((out - target) ** 2)

    found = jax.jit(lambda *taps: attention.lag_importance(loss, attention.LagTaps(*taps)))(
        lags, placed
    )

    def dense(placed):
        out = attend(query, key, value, counts_of(LENGTH, lags, placed, 0))
        return np.mean((out - target) ** 2)

    for slot in np.ndindex(lags.shape):
        without = placed.copy()
        without[slot] = False
        assert_close(found[slot], dense(without) - dense(placed), rtol=1e-3, atol=1e-6)


def copies():
    """Values that come again after 4 and 9 steps, and the loss of telling them."""
    value = np.random.default_rng(7).normal(size=(40, 1, 3)).astype(np.float32)
    target = sum(np.roll(value, u, axis=0) for u in (4, 9)) / 2
    zeros = np.zeros_like(value)

    def error(out):
        return jnp.mean((out - target)[9:] ** 2)

    def loss(taps):
        return error(attention.lag_attention(zeros, zeros, value, *taps))

    def gains(taps):
        slope = jax.grad(error)(attention.lag_attention(zeros, zeros, value, *taps))
        return attention.lag_attention_gains(
            zeros, zeros, value, taps.lags, slope, placed=taps.placed, reach=16
        )

    return loss, gains


def test_a_swap_mends_what_noise_has_placed():
    loss, gains = copies()
    wrong = attention.LagTaps(jnp.array([[4, 13]]), jnp.ones((1, 2), bool))
    swap = jax.jit(lambda *taps: attention.swap_lag(loss, gains, attention.LagTaps(*taps)))
    right = swap(*wrong)
    assert sorted(lags_of(right)[0]) == [4, 9]
    assert lags_of(swap(*right)) == lags_of(right)


def test_without_a_slot_nothing_is_swapped():
    taps = attention.empty_lags(2, 0)
    found = attention.swap_lag(lambda taps: 0.0, lambda taps: jnp.ones((2, 5)), taps)
    assert found.placed.shape == (2, 0)


def test_pursuit_finds_both_lags_of_a_copy():
    _, gains = copies()
    taps = attention.empty_lags(1, 2)
    probe = jax.jit(lambda taps: attention.pursue_lags(gains(taps), taps, min_z=3.0))
    for _ in range(2):
        taps = probe(taps)
    assert sorted(lags_of(taps)[0]) == [4, 9]


@pytest.mark.parametrize(
    ("call", "found", "expected"),
    [
        (lambda: attention.empty_lags(0, 2), "heads=0", "at least 1"),
        (lambda: attention.pursue_lags(NOISE, [1]), "taps=[1]", "LagTaps(lags, placed)"),
        (lambda: attention.pursue_lags(NOISE[0], attention.empty_lags(2, 1)), "gains", "(2, any)"),
        (
            lambda: attention.pursue_lags(NOISE, attention.empty_lags(2, 1), min_z=np.nan),
            "min_z",
            "one number",
        ),
        (lambda: attention.lag_importance(3, attention.empty_lags(2, 1)), "loss=3", "a function"),
        (
            lambda: attention.swap_lag(jnp.sum, None, attention.empty_lags(2, 1)),
            "gains=None",
            "a function",
        ),
        (
            lambda: attention.lag_importance(lambda taps: None, attention.empty_lags(2, 1)),
            "loss(taps)=None",
            "an array of real numbers",
        ),
        (
            lambda: attention.swap_lag(
                lambda taps: taps.lags, lambda taps: NOISE, attention.empty_lags(2, 1)
            ),
            "a loss of shape (2, 1)",
            "one number",
        ),
    ],
)
def test_wrong_arguments_are_told(call, found, expected):
    assert_names_itself_and_its_cure(lambda: jax.eval_shape(call), found, expected, "")
