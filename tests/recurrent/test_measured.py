from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import recurrent
from tests.ops.examples import assert_names_itself_and_its_cure

from .examples import INPUTS, STEPS, dense, linear, numbers, params_of, start_of


def test_measured_bias_is_that_of_gradients_cut_by_hand():
    params, h, xs = params_of(dense), start_of(dense, 2), numbers(STEPS, 2, INPUTS)

    def loss(params, h):
        return jnp.mean(h**2)

    def loss_of_lag(params, lag):
        return recurrent.truncated_loss(dense, loss, params, h, xs, lag=lag)

    def cut_by_hand(params, lag):
        state = h
        for number, x in enumerate(xs):
            state = jax.lax.stop_gradient(state) if number == STEPS - lag else state
            state = dense(params, state, x)
        return loss(params, state)

    @jax.jit
    def run(params, lag):
        return recurrent.measured_bias(loss_of_lag, params, lag=lag, reference=STEPS)

    @jax.jit
    def by_hand(params):
        by_lag = recurrent.bias_by_lag(dense, loss, params, h, xs)
        return [jax.grad(cut_by_hand)(params, lag) for lag in (STEPS, 1, 3)], by_lag

    (whole, *cut), by_lag = by_hand(params)
    whole = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(whole)])
    for lag, gradient in zip((1, 3), cut, strict=True):
        short = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])
        expected = np.linalg.norm(short - whole) / np.linalg.norm(whole)
        assert float(run(params, lag)) == pytest.approx(expected, rel=1e-5)
    assert float(run(params, STEPS)) == 0
    # All lags at once are the same numbers.
    assert by_lag.shape == (STEPS,)
    one_by_one = [float(run(params, lag)) for lag in range(1, STEPS + 1)]
    np.testing.assert_allclose(by_lag, one_by_one, rtol=1e-4)


def test_the_bias_of_a_linear_recurrence_has_a_closed_form():
    a, width = 0.8, 12
    by_lag = jax.jit(partial(recurrent.bias_by_lag, linear, lambda a, h: h[0]))
    biases = by_lag(a, np.zeros(1, np.float32), np.ones((width, 1), np.float32))
    # Lag k adds a^k times the state before, (1 - a^(W - 1 - k)) / (1 - a).
    shares = a ** np.arange(width) * (1 - a ** (width - 1 - np.arange(width))) / (1 - a)
    expected = 1 - shares.cumsum() / shares.sum()
    np.testing.assert_allclose(biases, expected, rtol=1e-4, atol=1e-6)
    assert recurrent.choose_lag(biases, 0.1, k_min=1, k_max=width) == 1 + np.argmax(expected < 0.1)


WRONG = [
    (lambda: recurrent.measured_bias(lambda p, k: 1.0, None, lag=1, reference=2), "params=None"),
    (lambda: recurrent.bias_by_lag(linear, lambda a, h: h, None, 0.0, jnp.ones(2)), "params=None"),
    (lambda: recurrent.measured_bias(3, 0.5, lag=1, reference=2), "loss_of_lag=3"),
    (lambda: recurrent.measured_bias(lambda p, k: p, 1, lag=1, reference=2), "a parameter of"),
    (lambda: recurrent.measured_bias(lambda p, k: p, 0.5, lag=0, reference=2), "lag=0"),
    (lambda: recurrent.measured_bias(lambda p, k: p, 0.5, lag=1, reference=1.5), "reference=1.5"),
    (
        lambda: recurrent.bias_by_lag(linear, lambda a, h: h, 1, 0.0, jnp.ones(2)),
        "a parameter of dtype int32",
    ),
    (
        lambda: recurrent.measured_bias(lambda p, k: p[None], 0.5, lag=1, reference=2),
        "a loss of shape (1,)",
    ),
]


@pytest.mark.parametrize(("call", "found"), WRONG)
def test_mistakes_are_told_in_three_parts(call, found):
    assert_names_itself_and_its_cure(call, found, "", "")
