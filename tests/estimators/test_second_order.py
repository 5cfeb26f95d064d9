"""Second derivatives of expectations: sums over all draws, weighted by their chances."""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.estimators import (
    AR,
    ARM,
    ARS,
    ARSM,
    REBAR,
    RELAX,
    RLOO,
    Enumeration,
    GumbelStraightThrough,
    ScoreFunction,
    StraightThrough,
    Subset,
    WithoutReplacement,
    expectation,
    reinforce,
    score_function_loss,
    straight_through,
    without_replacement,
)
from tests.estimators.examples import ordered_draws, softmax
from tests.ops.examples import assert_close

KEY = jax.random.key(0)
THETA = jnp.array([0.7, -1.25])
LOGITS = np.array([[0.5, -0.25, 0.875]], np.float32)
PLACES = jnp.arange(3.0)


def costs(theta, count=3):
    """A loss for every class: the square of a parameter, and a bend."""
    places = jnp.arange(count, dtype=theta.dtype)
    return theta[0] ** 2 * places**2 + theta[1] * jnp.sin(places + theta[0])


def exact(theta, logits):
    return jnp.sum(jax.nn.softmax(logits[0]) * costs(theta, logits.shape[1]))


def estimated(theta, logits, key, estimator):
    """The estimator's; a relaxed f bends where no row is one-hot."""

    def f(z):
        table = costs(theta, logits.shape[1])
        if estimator.relaxed:
            return jnp.sum(z[0] * table) + theta[0] * jnp.sum(z**2 - z)
        return table[z[0]]

    return expectation(key, logits, f, estimator=estimator)


def second_orders(function, *arguments):
    """The first derivative towards the logits, and all second ones, in both orders."""
    slope = jax.grad(function, 1)(*arguments)
    return slope, jax.hessian(function, (0, 1))(*arguments)


@cache
def wanted():
    return jax.jit(lambda: second_orders(exact, THETA, LOGITS))()


def test_enumeration_is_exact():
    found = jax.jit(lambda: second_orders(estimated, THETA, LOGITS, KEY, Enumeration()))()
    assert_close(found, wanted(), atol=2e-6)


def test_a_mixed_derivative_is_that_of_numpy():
    """Of theta ** 2 z ** 2, towards both: 2 theta p (z ** 2 - mean z ** 2)."""

    def of_squares(theta, logits):
        return expectation(KEY, logits, lambda z: theta**2 * z[0] ** 2, estimator="enumeration")

    p, squares = softmax(LOGITS[0]), np.arange(3.0) ** 2
    expected = 2 * 0.75 * p * (squares - p @ squares)
    first = jax.jacfwd(jax.grad(of_squares, 1), 0), jax.jacfwd(jax.grad(of_squares, 0), 1)
    for found in jax.jit(lambda: [one(jnp.float32(0.75), LOGITS) for one in first])():
        assert_close(found, expected[None], atol=1e-6)


def test_whole_numbers_have_second_derivatives_too():
    """The mean of a flag is a probability, whose Hessian is known."""

    def mean(logits, dtype):
        def is_one(z):
            return (z[0] == 1).astype(dtype)

        return expectation(KEY, logits[None], is_one, estimator="enumeration")

    logits = jnp.array([0.3, -0.2, 0.9])
    p = softmax(np.asarray(logits, np.float64))
    along = np.eye(3)[1] - p
    expected = p[1] * (np.outer(along, along) - np.diag(p) + np.outer(p, p))
    for dtype in (jnp.int32, jnp.bool_, jnp.bfloat16):
        hessian = jax.jit(jax.hessian(mean), static_argnums=1)(logits, dtype)
        assert_close(hessian, expected, rtol=1e-4, atol=1e-6)


def test_a_banned_class_and_several_variables():
    logits = np.array([[0.5, -np.inf, 0.25], [0.0, 0.75, -0.5]], np.float32)

    def table(theta):
        return jnp.sin(theta * (PLACES[:, None] + 1) * (PLACES - 0.5)) + PLACES

    def total(theta, logits):
        first, second = jax.nn.softmax(logits)
        return jnp.sum(first[:, None] * second * table(theta))

    def sampled(theta, logits):
        return expectation(KEY, logits, lambda z: table(theta)[z[0], z[1]], estimator="enumeration")

    theta = jnp.float32(0.625)
    found, expected = jax.jit(
        lambda: [second_orders(one, theta, logits) for one in (sampled, total)]
    )()
    assert_close(found, expected, atol=2e-6)


def mean_over_draws(monkeypatch, module, name, estimator, draws):
    """The mean of all estimates, with a module's function of the draws replaced."""
    samples = jnp.array(list(draws), jnp.int32)[..., None]
    chances = jnp.array(list(draws.values()))

    def of(samples):
        log_p = jax.nn.log_softmax(LOGITS[0])[samples[:, 0]]
        out = (samples, log_p) if "without" in name else samples
        monkeypatch.setattr(module, name, lambda *arguments: out)
        return second_orders(estimated, THETA, LOGITS, KEY, estimator)

    every = jax.jit(jax.vmap(of))(samples)
    return jax.tree.map(lambda leaf: jnp.tensordot(chances, leaf, 1, precision="highest"), every)


def independent(count):
    p = softmax(LOGITS[0])
    return {draw: np.prod(p[list(draw)]) for draw in itertools.product(range(3), repeat=count)}


@pytest.mark.parametrize("estimator", [ScoreFunction(1), ScoreFunction(2), RLOO(3)], ids=str)
def test_the_score_function_is_unbiased(monkeypatch, estimator):
    draws = independent(estimator.num_samples)
    found = mean_over_draws(monkeypatch, reinforce, "draw", estimator, draws)
    assert_close(found, wanted(), atol=5e-6)


def test_straight_through_is_unbiased_in_the_second_order_alone(monkeypatch):
    slope, seconds = mean_over_draws(
        monkeypatch, straight_through, "draw", StraightThrough(), independent(1)
    )
    assert_close(seconds, wanted()[1], atol=5e-6)
    assert not np.allclose(slope, wanted()[0], atol=1e-2)


def test_draws_without_replacement_are_unbiased(monkeypatch):
    draws = ordered_draws(2, tuple(softmax(LOGITS[0])))
    found = mean_over_draws(
        monkeypatch,
        without_replacement,
        "sample_without_replacement",
        WithoutReplacement(2),
        draws,
    )
    assert_close(found, wanted(), atol=5e-6)


NOISY = {
    "AR": AR(),
    "ARS": ARS(),
    "ARSM": ARSM(),
    "ARM": ARM(),
    "REBAR": REBAR(),
    "RELAX": RELAX(lambda z: jnp.sum(jax.nn.softmax(z) ** 2)),
    "GumbelStraightThrough": GumbelStraightThrough(),
    "Subset": Subset(2),
}


@pytest.mark.parametrize("name", NOISY)
def test_other_noise_is_unbiased_up_to_its_standard_error(name):
    logits = LOGITS[:, : 2 if name == "ARM" else 3]

    @jax.jit
    def both(keys):
        def of(key):
            return second_orders(estimated, THETA, logits, key, NOISY[name])[1]

        return jax.vmap(of)(keys), second_orders(exact, THETA, logits)[1]

    drawn, expected = both(jax.random.split(KEY, 20_000))
    deviations = [
        np.abs(one.mean(0) - two) / (one.std(0) / len(one) ** 0.5 + 1e-6)
        for one, two in zip(
            *(map(np.asarray, jax.tree.leaves(tree)) for tree in (drawn, expected)), strict=True
        )
    ]
    largest = max(one.max() for one in deviations)
    # A subset is a ratio estimator: its second derivatives are as biased as its first.
    assert largest > 10 if name == "Subset" else largest < 4.5


@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
def test_a_loss_of_draws_is_unbiased(baseline):
    draws = independent(2)
    chances = jnp.array(list(draws.values()))

    def surrogate(theta, logits, draw):
        logs = jax.nn.log_softmax(logits[0])[draw]
        return score_function_loss(costs(theta)[draw], logs, baseline=baseline)

    def of(draw):
        return second_orders(surrogate, THETA, LOGITS, draw)

    every = jax.jit(jax.vmap(of))(jnp.array(list(draws)))
    found = jax.tree.map(lambda leaf: jnp.tensordot(chances, leaf, 1, precision="highest"), every)
    assert_close(found, wanted(), atol=5e-6)
