import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import recurrent
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

from .examples import INPUTS, dense, gated, linear, numbers, params_of, start_of

LENGTH = 5


def weighed_by_hand(cell, params, h, xs, weights):
    """The same with ``w h + (1 - w) stop_gradient(h)``, whose value rounds."""
    for x, weight in zip(xs, weights, strict=True):
        h = jax.tree.map(lambda leaf, w=weight: w * leaf + (1 - w) * jax.lax.stop_gradient(leaf), h)
        h = cell(params, h, x)
    return h


@pytest.mark.parametrize("cell", [dense, gated])
def test_the_gradient_is_weighed_before_every_step(cell):
    params, h, xs = params_of(cell), start_of(cell), numbers(LENGTH, INPUTS)
    weights = jnp.array([1.0, 0.5, 0.0, 2.0, 1.0])

    def total(run, params, h):
        return sum(map(jnp.sum, jax.tree.leaves(run(cell, params, h, xs, weights))))

    @jax.jit
    def run(params, h):
        by_scan = jax.value_and_grad(
            lambda *both: total(lambda *a: recurrent.weighted_scan(*a)[0], *both), (0, 1)
        )(params, h)
        by_hand = jax.value_and_grad(lambda *both: total(weighed_by_hand, *both), (0, 1))(params, h)
        plain = jax.lax.scan(lambda h, x: (cell(params, h, x),) * 2, h, xs)
        return by_scan, by_hand, recurrent.weighted_scan(cell, params, h, xs, weights), plain

    by_scan, by_hand, weighed, plain = run(params, h)
    assert_close(by_scan, by_hand, rtol=1e-4, atol=1e-6)
    # Values are those of a scan to the bit.
    jax.tree.map(np.testing.assert_array_equal, weighed, plain)


def test_what_is_cut_off_is_gone_also_where_it_is_not_finite():
    def root(a, h, x):
        return jnp.sqrt(h) * a + x

    def last(h, weights):
        return recurrent.weighted_scan(root, 0.5, h, jnp.ones(2), weights)[0]

    slope = jax.jit(jax.grad(last))
    assert float(slope(0.0, np.float32([0.0, 1.0]))) == 0
    assert np.isinf(float(slope(0.0, np.float32([1.0, 1.0]))))


def test_random_truncation_is_right_on_average_over_all_cuts():
    a, xs, chances = 0.8, numbers(LENGTH), np.array([0.3, 0.5, 0.1, 0.0, 0.6], np.float32)

    def loss(a, weights):
        return recurrent.weighted_scan(linear, a, jnp.ones(()), xs, weights)[0] ** 2

    cuts = np.array(list(itertools.product([False, True], repeat=LENGTH)))
    law = np.where(cuts, chances, 1 - chances).prod(axis=1)
    weights = np.where(cuts, 0, 1 / (1 - chances)).astype(np.float32)
    whole = np.ones((1, LENGTH), np.float32)
    slope = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))
    exact, *slopes = np.asarray(slope(a, np.concatenate([whole, weights])))
    assert float(law @ slopes) == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_weights_are_not_rounded_to_the_bits_of_a_state(dtype):
    """1.1111 would be 1.1094 in bfloat16, in every one of 100 steps."""
    weights = np.full(100, 1 / 0.9, np.float32)

    def last(h):
        scan = recurrent.weighted_scan(
            lambda a, h, x: h + x, 1.0, h.astype(dtype), jnp.zeros(100, dtype), weights
        )
        return scan[0].astype(jnp.float32) * 2.0**-10

    expected = 2.0**-10 * 0.9**-100.0
    assert float(jax.jit(jax.grad(last))(0.0)) == pytest.approx(expected, rel=0.03)


def test_random_cuts_have_their_probabilities_and_weights_the_mean_one():
    chances = jnp.array([0.0, 0.25, 0.5, 0.9])
    draws = 4000
    keys = jax.random.split(jax.random.key(0), draws)
    cut, weights = jax.jit(jax.vmap(lambda key: recurrent.artbp_weights(key, chances)))(keys)
    np.testing.assert_array_equal(weights, np.where(cut, 0, 1 / (1 - np.asarray(chances))))
    error = np.sqrt(chances * (1 - chances) / draws)
    assert np.all(np.abs(np.mean(cut, axis=0) - chances) <= 4 * error)
    deviation = np.std(weights, axis=0) / draws**0.5
    assert np.all(np.abs(np.mean(weights, axis=0) - 1) <= 4 * deviation)


STATE = jnp.zeros(())


def test_the_states_are_those_of_a_scan_also_where_they_are_infinite():
    weights = np.float32([1.25, 1.0, 0.0, 2.0])
    scan = jax.jit(partial(recurrent.weighted_scan, linear))
    _, states = scan(1.0, jnp.inf, np.ones(4, np.float32), weights)
    assert states.tolist() == [jnp.inf] * 4


def test_no_steps_are_cut_at_random():
    drawn = jax.jit(recurrent.artbp_weights)(jax.random.key(0), np.zeros(0, np.float32))
    assert drawn.cut.shape == drawn.weights.shape == (0,)


def test_parameters_may_hold_options_beside_arrays():
    def cell(params, h, x):
        return params["decay"] * h + jnp.ones(params["units"]).sum() * (params["kind"] == "a") * x

    params = {"decay": jnp.array(0.5), "units": 3, "kind": "a"}
    for scan in (
        lambda h, xs: recurrent.tbptt_scan(cell, params, h, xs, lag=1)[0],
        lambda h, xs: recurrent.window_scan(cell, params, h, xs, jnp.arange(2), carry=1)[1],
    ):
        assert float(jax.jit(scan)(0.0, np.ones(2, np.float32))) == 4.5


WRONG = [
    (lambda: recurrent.weighted_scan(linear, 1.0, STATE, jnp.ones(3), jnp.ones(2)), "weights of"),
    (lambda: recurrent.tbptt_scan(linear, 1.0, STATE, jnp.ones(3), lag=0), "lag=0"),
    (lambda: recurrent.tbptt_scan(linear, 1.0, STATE, jnp.ones(3), lag=1.5), "lag=1.5"),
    (
        lambda: jax.eval_shape(
            lambda lag: recurrent.tbptt_scan(linear, 1.0, STATE, jnp.ones(3), lag=lag), 1.0
        ),
        "lag of dtype float32",
    ),
    (
        lambda: recurrent.truncated_loss(
            linear, lambda a, h: h[None], 1.0, STATE, jnp.ones(1), lag=1
        ),
        "a loss of shape (1,)",
    ),
    (lambda: recurrent.truncated_loss(linear, None, 1.0, STATE, jnp.ones(1), lag=1), "loss=None"),
    (lambda: recurrent.artbp_weights(jax.random.key(0), [0.5, 1.0]), "probabilities from 0.5 to 1"),
    (lambda: recurrent.artbp_weights(jax.random.key(0), 0.5), "probabilities of shape ()"),
    (lambda: recurrent.artbp_weights(0, [0.5]), "key=0"),
]


@pytest.mark.parametrize(("call", "found"), WRONG, ids=[found for _, found in WRONG])
def test_mistakes_are_told_in_three_parts(call, found):
    assert_names_itself_and_its_cure(call, found, "", "")
