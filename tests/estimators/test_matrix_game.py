"""Two agents who act in turn: expectations within each other, against all nine pairs of actions."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.matrix_game import METHODS as SHOWN
from benchmarks.programs.matrix_game import METHODS, PAYOFF, Policies, in_turn
from sparse_hyper_jax.diagnostics import GradientReport, gradient_report
from sparse_hyper_jax.estimators import Enumeration, ScoreFunction

BIASED = ("Gumbel straight-through", "in turn: straight-through, RLOO-2", "RLOO-4 and peer term")
FIRST = np.array([0.5, -0.25, 0.0])
SECOND = np.array([[0.25, 0.0, -0.5], [0.0, 0.75, 0.25], [-0.25, 0.5, 0.125]])
TIED = np.tile(SECOND[0], (3, 1))


def shares(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def enumerated(first, second):
    """Give the payoff and its gradient, written out for two softmax policies."""
    one, two, payoff = shares(first), shares(second), np.asarray(PAYOFF, np.float64)
    answered = (two * payoff).sum(axis=1)
    value = one @ answered
    return value, one * (answered - value), one[:, None] * two * (payoff - answered[:, None])


def policies(second=SECOND):
    return Policies(jnp.asarray(FIRST, jnp.float32), jnp.asarray(second, jnp.float32))


@jax.jit
def report_all(found, exact, keys):
    return {
        name: gradient_report(
            exact, lambda key, one=one: one.estimate(found, key), keys, batch_size=1000
        )
        for name, one in METHODS.items()
    }


@cache
def reports(tied):
    second = TIED if tied else SECOND
    _, *slopes = enumerated(FIRST, second)
    exact = Policies(*(jnp.asarray(slope, jnp.float32) for slope in slopes))
    found = report_all(policies(second), exact, jax.random.split(jax.random.key(3), 20_000))
    return {name: GradientReport(*map(float, one)) for name, one in found.items()}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", [name for name in METHODS if name not in BIASED])
def test_estimates_without_bias_have_the_enumerated_mean(name, tied):
    assert reports(tied)[name].largest_z < 4
    assert (reports(tied)[name].variance > 1e-9) == (name != "exact")


@pytest.mark.parametrize("name", BIASED)
def test_slopes_through_a_hard_action_are_biased(name):
    assert reports(False)[name].bias > 5 * reports(False)[name].noise


def test_the_peer_term_is_bias_for_less_variance():
    with_it, without = (reports(False)[name] for name in ("RLOO-4 and peer term", "RLOO-4"))
    assert with_it.variance < without.variance


def test_an_expectation_within_another_has_the_value_of_both():
    value, *_ = enumerated(FIRST, SECOND)
    enumeration, keys = Enumeration(), jax.random.split(jax.random.key(0), 20_000)
    exact = in_turn(policies(), keys[0], enumeration, enumeration)
    np.testing.assert_allclose(exact, value, rtol=1e-5)
    drawn = jax.jit(
        jax.vmap(lambda key: in_turn(policies(), key, ScoreFunction(), ScoreFunction()))
    )(keys)
    assert set(np.unique(drawn)) <= set(np.unique(PAYOFF))
    assert abs(np.mean(drawn) - value) < 4 * np.std(drawn) / np.sqrt(len(keys))


def test_second_derivatives_of_both_agents_are_exact_by_enumeration():
    enumeration = Enumeration()

    @jax.jit
    @jax.hessian
    def curvature(found):
        return in_turn(found, jax.random.key(0), enumeration, enumeration)

    with jax.enable_x64(True):
        found = curvature(Policies(jnp.asarray(FIRST), jnp.asarray(SECOND)))
    step = 1e-5
    for place in range(3):
        moved = [FIRST + sign * step * np.eye(3)[place] for sign in (1, -1)]
        ups, downs = (enumerated(first, SECOND)[1:] for first in moved)
        for wanted, got in zip(
            ((up - down) / (2 * step) for up, down in zip(ups, downs, strict=True)),
            (found.first.first[place], found.first.second[place]),
            strict=True,
        ):
            np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_all_methods_are_shown():
    assert set(SHOWN) == set(METHODS)
