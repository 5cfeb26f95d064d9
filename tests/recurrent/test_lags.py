import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import recurrent
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

from .examples import INPUTS, STEPS, dense, gated, linear, numbers, params_of, start_of

ROWS = 4


def mean_square(params, h):
    return jnp.mean(jnp.sum(jax.tree.leaves(h)[-1] ** 2, axis=-1))


@pytest.mark.parametrize("cell", [dense, gated])
def test_they_are_the_gradients_of_the_rest_of_the_window(cell):
    params, h, xs = params_of(cell), start_of(cell, ROWS), numbers(STEPS, ROWS, INPUTS)

    @jax.jit
    def run(h):
        found = recurrent.lag_gradients(cell, mean_square, params, h, xs)
        states = [h]
        for x in xs:
            states.append(cell(params, states[-1], x))

        def from_then_on(state, lag):
            for x in xs[STEPS - lag :]:
                state = cell(params, state, x)
            return mean_square(params, state)

        return found, [jax.grad(from_then_on)(states[STEPS - k], k) for k in range(STEPS)]

    found, expected = run(h)
    for lag, one in enumerate(expected):
        assert_close(jax.tree.map(lambda leaf, k=lag: leaf[k], found), one, rtol=1e-5, atol=1e-7)


def test_a_linear_recurrence_has_powers():
    a, c, width = 0.8, numbers(3), 40

    @jax.jit
    def sizes(xs):
        h = jnp.zeros((2, 3))
        gradients = recurrent.lag_gradients(linear, lambda params, h: jnp.mean(h @ c), a, h, xs)
        return recurrent.lag_norms(gradients, rows=2)

    phi, cum = sizes(numbers(width, 2, 3))
    powers = a ** np.arange(width) * np.linalg.norm(c)
    np.testing.assert_allclose(phi, powers, rtol=2e-6)
    np.testing.assert_allclose(cum, powers.cumsum(), rtol=2e-6)


def test_a_shift_register_ends_exactly():
    length, width = 8, 12

    def shift(params, h, x):
        return jnp.concatenate([x[:, None], h[:, :-1]], axis=1)

    @jax.jit
    def sizes(xs):
        h = jnp.zeros((1, length))
        gradients = recurrent.lag_gradients(shift, lambda params, h: h[:, -1].sum(), None, h, xs)
        return recurrent.lag_norms(gradients, rows=1)

    phi, cum = sizes(numbers(width, 1))
    assert phi.tolist() == [1.0] * length + [0.0] * (width - length)
    beta = recurrent.fit_decay(phi)
    delta_hat, tail = recurrent.bias_bound(phi, cum, tau=length, beta=beta)
    assert beta == 1
    assert tail.tolist() == [*range(length - 1, 0, -1), *[0] * (width - length + 1)]
    assert np.all(delta_hat[: length - 1] > 0)
    assert np.all(delta_hat[length - 1 :] == 0)
    assert recurrent.choose_lag(delta_hat, 1e-9, k_min=1, k_max=width) == length


lag_norms = jax.jit(recurrent.lag_norms, static_argnames="rows")


def test_norms_are_those_of_numpy_over_all_arrays_and_positions():
    gradients = (numbers(5, 6, 3), numbers(5, 6, 2, 2, seed=1))
    phi, cum = lag_norms(gradients, rows=3)
    flat = 3 * np.concatenate([leaf.reshape(5, 6, -1) for leaf in gradients], axis=-1)
    np.testing.assert_allclose(phi, np.linalg.norm(flat, axis=-1).mean(axis=1), rtol=1e-5)
    sums = np.linalg.norm(flat.mean(axis=1).cumsum(axis=0), axis=-1)
    np.testing.assert_allclose(cum, sums, rtol=1e-5)


def test_sizes_below_the_squares_of_floats_are_told():
    phi, cum = lag_norms(np.array([[3e-30, 4e-30]], np.float32)[..., None], rows=2)
    np.testing.assert_allclose(phi, [7e-30], rtol=1e-5)
    np.testing.assert_allclose(cum, [7e-30], rtol=1e-5)


def test_short_floats_are_added_in_long_ones():
    phi, cum = lag_norms(np.ones((4096, 1, 1), jnp.bfloat16), rows=1)
    assert phi.dtype == cum.dtype == jnp.float32
    assert float(cum[-1]) == 4096


WRONG = [
    (lambda: recurrent.lag_gradients(3, mean_square, None, jnp.ones(1), jnp.ones(2)), "cell=3"),
    (lambda: recurrent.lag_gradients(linear, 3, 0.5, jnp.ones(1), jnp.ones(2)), "loss=3"),
    (
        lambda: recurrent.lag_gradients(linear, mean_square, 0.5, jnp.ones(1, int), jnp.ones(2)),
        "an array of the state of dtype int32",
    ),
    (lambda: recurrent.lag_gradients(linear, mean_square, 0.5, (), jnp.ones(2)), "a state ()"),
    (
        lambda: recurrent.lag_gradients(linear, mean_square, 0.5, jnp.ones(1), jnp.ones((2, 3))),
        "float32[3]",
    ),
    (
        lambda: recurrent.lag_gradients(linear, mean_square, 0.5, jnp.ones(1), jnp.ones((0, 1))),
        "inputs of shapes",
    ),
    (
        lambda: recurrent.lag_gradients(
            lambda a, h, x: h, mean_square, 0.5, jnp.ones(1), (jnp.ones(2), jnp.ones(3))
        ),
        "inputs of shapes",
    ),
    (
        lambda: recurrent.lag_gradients(linear, lambda a, h: h, 0.5, jnp.ones(1), jnp.ones(2)),
        "a loss of shape (1,)",
    ),
    (lambda: recurrent.lag_norms(jnp.ones(3), rows=1), "gradients of shapes"),
    (lambda: recurrent.lag_norms((), rows=1), "gradients of shapes"),
    (lambda: recurrent.lag_norms(jnp.ones((3, 2)), rows=0), "rows=0"),
]


@pytest.mark.parametrize(("call", "found"), WRONG, ids=[found for _, found in WRONG])
def test_mistakes_are_told_in_three_parts(call, found):
    assert_names_itself_and_its_cure(lambda: jax.eval_shape(call), found, "", "")


def test_sizes_neither_vanish_nor_overflow_near_the_largest_floats():
    sizes = np.float32([8e37, 9e37, 1e38, np.inf, 2e-38, 0.0])
    gradients = np.zeros((6, 2, 2), np.float32)
    gradients[:, :, 0] = sizes[:, None]
    found = jax.jit(lambda g: recurrent.lag_norms(g, rows=2).phi)(gradients)
    np.testing.assert_allclose(found, 2 * sizes, rtol=1e-6)
