import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.estimators import REBAR, GumbelStraightThrough, StraightThrough
from tests.estimators.examples import (
    KEY,
    PROBLEMS,
    Problem,
    draw_block,
    estimate,
    exact,
    keys_of,
    mean_and_error,
    objective,
    softmax,
)
from tests.ops.examples import all_finite, assert_close, assert_names_itself_and_its_cure

BEND = 0.7
FEW = 20
TWO = PROBLEMS["two variables"]

each_kind = pytest.mark.parametrize(
    "estimator", [StraightThrough(), GumbelStraightThrough(0.4)], ids=str
)


def slope_by_hand(table, choice):
    """Differentiate the relaxed table at one-hot rows: each row sees the others' choices.

    The bend, ``sum(y ** 2 - y)``, adds 1 at the chosen class and -1 at the others.
    """
    first, second = choice
    return np.stack([table[:, second], table[first]]) + BEND * (2 * np.eye(4)[list(choice)] - 1)


def pull_back(soft, slope):
    """Multiply with the Jacobian of a softmax, ``diag(p) - p p^T``."""
    return soft * (slope - np.sum(soft * slope, axis=-1, keepdims=True))


def test_straight_through_is_its_formula():
    block = draw_block(StraightThrough(), TWO, bend=BEND)
    for value, gradient, samples in zip(*(part[:FEW] for part in block), strict=True):
        choice = tuple(samples[0])
        assert_close(value, TWO.table[choice])
        expected = pull_back(softmax(TWO.logits), slope_by_hand(TWO.table, choice))
        assert_close(gradient, expected, atol=2e-6)


@pytest.mark.parametrize("temperature", [0.4, 1, 3.0])
def test_gumbel_straight_through_is_its_formula(temperature):
    block = draw_block(GumbelStraightThrough(temperature), TWO, bend=BEND)
    noise = jax.vmap(lambda key: jax.random.gumbel(key, (2, 4)))(keys_of(0)[:FEW])
    parts = zip(*(part[:FEW] for part in block), np.asarray(noise), strict=True)
    for value, gradient, samples, gumbel in parts:
        noisy = TWO.logits + gumbel
        choice = tuple(np.argmax(noisy, axis=1))
        assert tuple(samples[0]) == choice
        assert_close(value, TWO.table[choice])
        soft = softmax(noisy / temperature)
        expected = pull_back(soft, slope_by_hand(TWO.table, choice)) / temperature
        assert_close(gradient, expected, rtol=1e-4, atol=3e-6)


@each_kind
def test_the_value_is_that_of_a_hard_choice(estimator):
    value, _, samples = draw_block(estimator, TWO, bend=BEND)
    assert_close(value, TWO.table[tuple(samples[:, 0].T)])
    shares = np.bincount(samples[:, 0, 0], minlength=4) / len(samples)
    expected = softmax(TWO.logits)[0]
    assert (np.abs(shares - expected) < 4 * np.sqrt(expected / len(samples))).all()


def test_low_temperatures_trade_bias_for_variance():
    def figures(temperature):
        gradient = draw_block(GumbelStraightThrough(temperature), TWO, bend=BEND).gradient
        mean, error = mean_and_error(gradient)
        return np.square(mean - exact(TWO)[1]).sum(), np.square(error).sum()

    (low_bias, high_variance), (high_bias, low_variance) = figures(0.4), figures(3.0)
    assert low_bias < 0.7 * high_bias
    assert high_variance > 3 * low_variance


@each_kind
@pytest.mark.parametrize("scale", [0.0, 50.0, 1e30])
def test_extreme_logits_stay_finite(estimator, scale):
    problem = Problem(np.float32(scale) * TWO.logits, TWO.table)
    assert all_finite(estimate(estimator, problem, bend=BEND)[:2])


def test_f_may_look_at_each_row_once():
    # A slope that depends on the point: it is that of the one-hot row, not of the soft one.
    def f(rows):
        return jnp.sum(jnp.exp(rows) * jnp.arange(4.0))

    drawn = StraightThrough().estimate(KEY, TWO.logits, f)
    hot = np.eye(4)[np.asarray(drawn.samples[0])]
    expected = pull_back(softmax(TWO.logits), np.exp(hot) * np.arange(4.0))
    assert_close(drawn.gradient, expected)


@each_kind
def test_a_choice_without_slope_gives_zero(estimator):
    def f(rows):
        return jnp.asarray(TWO.table)[tuple(jnp.argmax(rows, axis=-1))]

    value, gradient, samples = estimator.estimate(KEY, TWO.logits, f)
    assert_close(value, TWO.table[tuple(samples[0])])
    assert not gradient.any()


def test_a_temperature_may_be_traced_and_trained():
    def spread(temperature):
        f = objective(StraightThrough(), TWO.table, BEND)
        return jnp.sum(
            GumbelStraightThrough(temperature).estimate(KEY, TWO.logits, f).gradient ** 2
        )

    value, slope = jax.jit(jax.value_and_grad(spread))(1.0)
    low, high = (jax.jit(spread)(temperature) for temperature in (0.99, 1.01))
    assert_close(value, 0.5 * (low + high), rtol=1e-2)
    assert_close(slope, (high - low) / 0.02, rtol=1e-2)


@pytest.mark.parametrize("kind", [GumbelStraightThrough, REBAR])
@pytest.mark.parametrize("temperature", [0.0, -1, np.nan, np.inf, np.float32(-2), "warm"])
def test_a_mistake_names_itself_and_its_cure(kind, temperature):
    assert_names_itself_and_its_cure(
        lambda: kind(temperature),
        f"temperature={temperature!r}",
        "at least 1.17549e-38",
        "change temperature",
    )
