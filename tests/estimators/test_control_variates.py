from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_hyper_jax.estimators import REBAR, RELAX, perturb_given_winner
from tests.estimators.examples import (
    BLOCK,
    KEY,
    PROBLEMS,
    draw_block,
    estimate,
    exact,
    keys_of,
    mean_and_error,
    objective,
    softmax,
)
from tests.ops.examples import all_finite, assert_close, assert_names_itself_and_its_cure

TWO = PROBLEMS["two variables"]
BANNED = PROBLEMS["two, one class banned"]
LOG_P = jax.nn.log_softmax(jnp.asarray(TWO.logits))


def score_function_by_hand(problem, value, samples):
    return value * (np.eye(4)[samples[0]] - softmax(problem.logits))


@partial(jax.jit, static_argnames=("temperature",))
def rebar_block(scale, temperature, keys, shift=0.0):
    def once(key):
        f = objective(REBAR(), TWO.table + shift, 0.7)
        return REBAR(temperature, scale).estimate(key, TWO.logits, f)

    return jax.vmap(once)(keys)


def network(parameters, z):
    hidden = jnp.tanh(parameters["in"] @ z.reshape(-1) + parameters["bias"])
    return parameters["out"] @ hidden + parameters["last"]


def surrogate_parameters(seed=0):
    generator = np.random.default_rng(seed)
    return {
        "in": jnp.asarray(0.3 * generator.normal(size=(16, 8)), jnp.float32),
        "bias": jnp.zeros(16),
        "out": jnp.zeros(16),
        "last": jnp.zeros(()),
    }


def gradients(parameters, keys):
    """Estimate with a surrogate for a large f, whose plain score function is noisy."""
    estimator = RELAX(lambda z: network(parameters, z))
    f = objective(estimator, TWO.table + 3)
    return jax.vmap(lambda key: estimator.estimate(key, TWO.logits, f).gradient)(keys)


def squares(parameters, keys):
    return jnp.mean(jnp.sum(gradients(parameters, keys) ** 2, axis=(1, 2)))


@jax.jit
def trained(parameters):
    optimizer = optax.adam(0.03)

    def step(state, key):
        parameters, moments = state
        slope = jax.grad(squares)(parameters, jax.random.split(key, 16))
        updates, moments = optimizer.update(slope, moments)
        return (optax.apply_updates(parameters, updates), moments), None

    state = parameters, optimizer.init(parameters)
    return jax.lax.scan(step, state, jax.random.split(KEY, 300))[0][0]


@jax.jit
def tied_block(keys, log_p, winners):
    return jax.vmap(lambda key: perturb_given_winner(key, log_p, winners))(keys)


def test_winners_are_the_largest():
    for winner in range(4):
        winners = np.array([winner, 3 - winner])
        z = np.asarray(tied_block(keys_of(0), LOG_P, winners))
        assert (np.argmax(z, axis=-1) == winners).all()
        assert np.isfinite(z).all()


def test_winners_win_whatever_their_probability():
    # Each class of a very unequal row once.
    log_p = jax.nn.log_softmax(jnp.array([[0.0, -80.0, -1e4, -1e30]] * 4))
    z = np.asarray(tied_block(keys_of(0), log_p, np.arange(4)))
    assert np.isfinite(z).all()
    assert (z.max(-1) == z[:, range(4), range(4)]).all()


def test_the_law_is_that_of_plain_perturbation():
    @jax.jit
    @jax.vmap
    def both(key):
        first, second, third = jax.random.split(key, 3)
        winners = jax.random.categorical(first, LOG_P)
        tied = perturb_given_winner(second, LOG_P, winners)
        return tied, LOG_P + jax.random.gumbel(third, LOG_P.shape)

    tied, free = (
        np.asarray(part, np.float64)
        for part in both(jnp.concatenate([keys_of(n) for n in range(5)]))
    )
    # Means, squares, products between the classes of a row, and a bounded function.
    features = [
        lambda z: z,
        np.square,
        lambda z: z[..., :1] * z,
        lambda z: z[:, ::-1] * z,
        np.tanh,
        lambda z: z == z.max(-1, keepdims=True),
    ]
    for feature in features:
        (one, error), (two, other) = (
            mean_and_error(np.asarray(feature(z), np.float64)) for z in (tied, free)
        )
        assert (np.abs(one - two) < 4 * np.hypot(error, other)).all()
    # A Gumbel variate has the mean 0.5772 and the variance pi^2 / 6.
    mean, error = mean_and_error(tied - np.asarray(LOG_P))
    assert (np.abs(mean - np.euler_gamma) < 4 * error).all()


def test_the_slope_is_that_of_the_noise_held_fixed():
    winners = jnp.array([2, 0])

    def total(log_p):
        return jnp.sum(jnp.sin(perturb_given_winner(KEY, log_p, winners)))

    slope = jax.grad(total)(LOG_P)
    for place in np.ndindex(2, 4):
        step = jnp.zeros((2, 4)).at[place].set(1e-2)
        measured = (total(LOG_P + step) - total(LOG_P - step)) / 2e-2
        assert_close(slope[place], measured, rtol=1e-2, atol=1e-3)


def test_padding_and_what_is_not_a_number():
    winners = jnp.array([1, -1, 4, 2, -1000])
    log_p = jnp.concatenate([LOG_P, LOG_P, LOG_P[:1]]).at[jnp.array([1, 3]), 2].set(jnp.nan)

    def total(log_p):
        z = perturb_given_winner(KEY, log_p, winners)
        return jnp.sum(z[:3]), z

    slope, z = jax.jit(jax.grad(total, has_aux=True))(log_p)
    assert np.argmax(z[0]) == 1
    assert not np.any(z[np.array([1, 2, 4])])
    assert np.isnan(z[3]).all()
    assert all_finite(slope[:3])
    assert not np.any(slope[1:3])


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_rebar_is_unbiased_for_any_scale(temperature):
    for scale in (-0.5, 0.5, 1.0, 2.0):
        blocks = [rebar_block(scale, temperature, keys_of(n)) for n in range(5)]
        gradient = np.concatenate([np.asarray(block.gradient, np.float64) for block in blocks])
        mean, error = mean_and_error(gradient)
        assert (np.abs(mean - exact(TWO)[1]) < 4 * error).all()


def test_without_scale_it_is_the_score_function():
    block = rebar_block(0.0, 0.2, keys_of(0))
    for value, gradient, samples in zip(*(part[:20] for part in block), strict=True):
        assert_close(gradient, score_function_by_hand(TWO, value, samples))


def test_rebar_lowers_the_variance_of_a_large_f():
    # For a large f, the constant part of which cancels.
    plain, better = (
        rebar_block(scale, 0.2, keys_of(0), 3.0).gradient.var(0) for scale in (0.0, 1.0)
    )
    assert better.sum() < 0.5 * plain.sum()


def test_rebar_is_relax_with_the_relaxed_f():
    f = objective(REBAR(), TWO.table, 0.7)
    relax = RELAX(lambda z: f(jax.nn.softmax(z / 0.3)), 0.8)
    assert_close(estimate(relax, TWO), estimate(REBAR(0.3, 0.8), TWO, bend=0.7))


def test_scale_and_temperature_can_be_trained():
    def spread(scale, temperature):
        f = objective(REBAR(), TWO.table, 0.7)
        return jnp.sum(REBAR(temperature, scale).estimate(KEY, TWO.logits, f).gradient ** 2)

    places = jnp.float32(0.7), jnp.float32(0.9)
    slopes = jax.jit(jax.grad(spread, argnums=(0, 1)))(*places)
    for n, slope in enumerate(slopes):
        low, high = (
            jax.jit(spread)(*(place + sign * 0.01 * (k == n) for k, place in enumerate(places)))
            for sign in (-1, 1)
        )
        assert_close(slope, (high - low) / 0.02, rtol=0.02, atol=1e-3)


def test_training_the_surrogate_lowers_the_variance():
    start = surrogate_parameters()
    # Other keys than those of the training; the surrogate starts as 0, which is no control variate.
    fresh = keys_of(1)
    final = trained(start)
    assert all_finite(jax.jit(jax.grad(squares))(final, fresh[:100]))
    before, after = (
        np.asarray(jax.jit(gradients)(one, fresh), np.float64) for one in (start, final)
    )
    assert after.var(0).sum() < 0.3 * before.var(0).sum()
    mean, error = mean_and_error(after)
    assert (np.abs(mean - exact(TWO)[1]) < 4 * error).all()


def test_a_surrogate_of_zero_leaves_the_score_function():
    value, gradient, samples = estimate(RELAX(lambda z: 0.0 * jnp.sum(z)), TWO)
    assert_close(gradient, score_function_by_hand(TWO, value, samples))


@pytest.mark.parametrize("estimator", [REBAR(), REBAR(1e-6), RELAX(lambda z: jnp.sum(jnp.tanh(z)))])
def test_banned_classes_and_peaked_logits_stay_finite(estimator):
    for problem in (BANNED, TWO._replace(logits=1e4 * TWO.logits)):
        block = draw_block(estimator, problem)
        assert all_finite(block[:2])
        assert not block.gradient[:, np.isneginf(problem.logits)].any()
    assert len(block.value) == BLOCK


@pytest.mark.parametrize(
    ("call", "found", "expected", "change"),
    [
        (
            lambda: estimate(RELAX(lambda z: z[0]), TWO),
            "a control variate that returns shape (4,)",
            "a scalar",
            "sum inside it",
        ),
    ],
)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
