"""What a probe places is what forward selection by least squares selects; noise is left alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import conv, ops
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure
from tests.ops.test_gains import circular, squares_left


def test_taps_of_one_probe_are_those_of_forward_selection():
    columns, correlation, generator = circular((20,))
    target = columns[:, [3, 5, 12]] @ [[2.0], [-1.5], [1.0]] + generator.normal(size=(20, 1))
    gains = columns.T @ target / np.sqrt((columns[:, 0] ** 2).sum())

    @jax.jit
    def run(gains, correlation):
        return ops.pursue_gains(
            gains,
            ops.empty_taps(5),
            4,
            autocorrelation=correlation,
            min_z=None,
            ridge=1e-7,
            floor=1e-7,
        )

    with jax.enable_x64(True):
        found = run(gains, correlation)
    selected = []
    for _ in range(4):
        left = [squares_left(columns[:, [*selected, cell]], target) for cell in range(20)]
        selected.append(int(np.argmin(left)))
    assert found.positions.ravel().tolist() == [*selected, 0]
    assert found.placed.tolist() == [True] * 4 + [False]


def noisy(cells, features, tall, seed=0):
    generator = np.random.default_rng(seed)
    gains = generator.normal(size=(cells, features)).astype(np.float32)
    gains[list(tall)] += 2.0
    return gains


@jax.jit
def until_noise(gains, allowed, min_z):
    return ops.pursue_gains(gains, ops.empty_taps(8), 8, allowed=allowed, apart=2, min_z=min_z)


@pytest.mark.parametrize(
    ("tall", "closed", "expected"),
    [
        ([], [], []),
        ([7, 40, 90], [], [7, 40, 90]),
        ([7, 8, 90], [], [7, 90]),  # the smaller one of two neighbours is closed
        ([7, 40, 90], [40], [7, 90]),
    ],
)
def test_what_stands_out_is_placed_and_nothing_else(tall, closed, expected):
    gains, allowed = noisy(100, 64, tall), np.ones(100, bool)
    gains[8] *= 0.9
    allowed[closed] = False
    taps = until_noise(gains, allowed, 7.0)
    assert sorted(taps.positions[taps.placed].ravel().tolist()) == expected
    assert until_noise(gains, allowed, 1e9).placed.sum() == 0


def test_loud_channels_do_not_outshout_others():
    gains = np.zeros((6, 2, 1), np.float32)
    gains[1, 0], gains[4, 1] = 10.0, 1.0
    taps = ops.empty_taps(1)
    loud = np.diag(np.array([10000.0, 1.0], np.float32))  # 1 / sqrt(5) beside 10 / 100

    @jax.jit
    def both(gains):
        as_they_are = ops.pursue_gains(gains, taps, min_z=None)
        return as_they_are, ops.pursue_gains(gains, taps, min_z=None, covariance=loud)

    as_they_are, fair = both(gains)
    assert as_they_are.positions.tolist() == [[1]]
    assert fair.positions.tolist() == [[4]]


def coloured_noise(shape, seed):
    """Gains that mean nothing, correlated along the cells as those of coloured inputs are."""
    generator = np.random.default_rng(seed)
    white = np.fft.fft(generator.normal(size=shape), axis=-2)
    decay = 0.9 ** np.minimum(np.arange(shape[-2]), shape[-2] - np.arange(shape[-2]))
    filtered = np.fft.ifft(white * np.sqrt(abs(np.fft.fft(decay)))[:, None], axis=-2).real
    return filtered.astype(np.float32)


RATES = (0.02, 0.1, 0.3)


def test_on_pure_noise_a_probe_places_a_tap_at_the_given_rate():
    first, second = coloured_noise((2, 2000, 64, 4), seed=0)
    correlation = 0.9 ** np.arange(64)

    def run(first, second, rate):
        taps = ops.pursue_halves(
            first,
            second,
            ops.Taps(jnp.array([[9], [0]]), jnp.array([True, False])),
            autocorrelation=correlation,
            false_rate=rate,
        )
        return taps.placed[1]

    over = jax.vmap(jax.vmap(run, (None, None, 0)), (0, 0, None))
    placed = jax.jit(over)(first, second, np.array(RATES))
    for rate, found in zip(RATES, placed.mean(axis=0), strict=True):
        # Four standard errors; p-values are multiples of 1/63.
        exact = np.floor(rate * 63) / 63
        assert abs(found - exact) < 4 * np.sqrt(exact / 2000)


def test_the_rate_holds_for_gains_of_sequences_that_begin_with_padding():
    """Long lags read fewer inputs: without counts, short ones are taken for more than noise."""
    steps, reach, runs = 60, 50, 1000

    def run(key):
        input_key, error_key = jax.random.split(key)
        inputs = jax.random.normal(input_key, (6, steps, 2))
        errors = jax.random.normal(error_key, (6, steps, 2))
        halves = [conv.lag_gains(inputs[n::2], errors[n::2], reach) for n in (0, 1)]
        counts = steps - np.arange(reach)
        return [
            ops.pursue_halves(*halves, ops.empty_taps(1), false_rate=0.1, **options).placed.sum()
            for options in ({"counts": counts}, {})
        ]

    placed, without = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), runs))
    error = np.sqrt(0.1 / runs)
    assert abs(placed.mean() - 0.1) < 3 * error
    assert without.mean() > 0.1 + 3 * error


def test_halves_confirm_what_is_in_both_and_not_what_is_in_one():
    shared, own = [11, 30, 77], 55
    halves = np.stack([noisy(100, 16, shared, seed=1), noisy(100, 16, shared, seed=2)])
    halves[0, own] += 1.0
    probe = jax.jit(
        lambda *halves: ops.pursue_halves(*halves, ops.empty_taps(6), 6, false_rate=0.04)
    )
    taps = probe(*halves)
    assert sorted(taps.positions[taps.placed].ravel().tolist()) == shared
    # What the first half proposes first ends the probe if the second does not confirm it.
    halves[0, own] += 9
    assert not probe(*halves).placed.any()


def test_too_few_cells_can_confirm_nothing():
    halves = np.zeros((2, 10, 3), np.float32)
    halves[:, 4] = 9

    @jax.jit
    def probe(rate):
        return ops.pursue_halves(*halves, ops.empty_taps(1), false_rate=rate)

    assert not probe(0.09).placed.any()
    assert probe(0.11).positions[0, 0] == 4


def test_p_values_are_shares_of_the_open_cells():
    generator = np.random.default_rng(3)
    first, second = generator.normal(size=(2, 30, 4)).astype(np.float32)
    first[3], second[9] = 0, np.nan
    allowed = np.ones(30, bool)
    allowed[[4, 5]] = False
    taps = ops.Taps([[20], [0]], [True, False])
    p_values = jax.jit(
        lambda: ops.split_half_p_values(first, second, taps, apart=1, allowed=allowed)
    )
    found = np.asarray(p_values())
    size = np.sqrt((first**2).sum(1))
    agreement = np.where(size > 0, (first * second).sum(1) / np.where(size > 0, size, 1), 0)
    opened = np.setdiff1d(np.flatnonzero(allowed), [9, 19, 20, 21])
    for cell in opened:
        expected = (agreement[opened] >= agreement[cell]).mean()
        assert_close(found[cell], np.float32(expected))
    assert np.isnan(found[9])
    assert (found[[4, 5, 19, 20, 21]] == 1).all()


ONES, EMPTY = np.ones((4, 2)), ops.empty_taps(2)


@pytest.mark.parametrize(
    ("call", "found", "expected", "change"),
    [
        (lambda: ops.pursue_gains(ONES, EMPTY, -1), "count=-1", "at least 0", "static int"),
        (lambda: ops.pursue_gains(ONES, EMPTY, min_z=np.nan), "min_z=nan", "one number", "change"),
        (lambda: ops.pursue_gains(ONES, EMPTY, apart=0.5), "apart=0.5", "an int", "static"),
        (lambda: ops.pursue_gains(ONES, EMPTY, ridge=0), "ridge=0", "above 0", "change ridge"),
        (
            lambda: ops.pursue_gains(ONES, EMPTY, covariance=np.eye(2)),
            "covariance of shape (2, 2)",
            "(4, 4)",
            "reshape covariance",
        ),
        (
            lambda: ops.pursue_gains(ONES, EMPTY, allowed=np.ones(3, bool)),
            "allowed of shape (3,)",
            "(4)",
            "reshape allowed",
        ),
        (
            lambda: ops.pursue_halves(ONES, np.ones((4, 3)), EMPTY),
            "second of shape (4, 3)",
            "the same shape",
            "reshape",
        ),
        (
            lambda: ops.pursue_halves(ONES, ONES, EMPTY, counts=[1.0]),
            "counts of shape (1,)",
            "(4)",
            "reshape counts",
        ),
        (
            lambda: ops.pursue_halves(ONES, ONES, EMPTY, false_rate=1.5),
            "false_rate=1.5",
            "at most 1",
            "change false_rate",
        ),
        (
            lambda: ops.split_half_p_values(ONES, ONES[:3], EMPTY),
            "second of shape (3, 2)",
            "the same shape",
            "reshape",
        ),
        (
            lambda: ops.split_half_p_values(ONES, ONES, EMPTY, floor=0),
            "floor=0",
            "above 0",
            "change floor",
        ),
    ],
)
def test_wrong_calls_are_refused(call, found, expected, change):
    assert_names_itself_and_its_cure(lambda: jax.eval_shape(call), found, expected, change)
