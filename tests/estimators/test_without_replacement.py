from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.estimators import Enumeration, Subset, WithoutReplacement
from sparse_hyper_jax.estimators import sample_without_replacement as sample
from sparse_hyper_jax.estimators.without_replacement import leave_out_ratios
from tests.estimators.examples import (
    BLOCK,
    KEY,
    PROBLEMS,
    Problem,
    chance_of_set,
    draw_block,
    estimate,
    keys_of,
    make_problem,
    ordered_draws,
    probabilities,
)
from tests.ops.examples import all_finite, assert_close, assert_names_itself_and_its_cure

SMALL = make_problem(2, 3, seed=1)
BANNED = PROBLEMS["two, one class banned"]
# Three choices that are not banned, fewer than are asked for.
SCARCE = make_problem(1, 5, banned=[(0, 1), (0, 3)])
PEAKED = Problem(300 * np.eye(2, 4, dtype=np.float32), PROBLEMS["two variables"].table)


@partial(jax.jit, static_argnames="count")
def sample_block(keys, logits, count):
    return jax.vmap(lambda key: sample(key, logits, count))(keys)


@jax.jit
def ratios_of(log_p):
    return leave_out_ratios(log_p, jnp.log1p(-jnp.sum(jnp.exp(log_p))))


def drawn(logits, count):
    """Give flat choices ``(BLOCK, count)`` and their log probabilities."""
    samples, log_p = (np.asarray(part) for part in sample_block(keys_of(0), logits, count))
    places = logits.shape[1] ** np.arange(len(logits))[::-1]
    return samples @ places, log_p


def assert_shares(hits, expected):
    """Compare shares with probabilities: within 4 standard errors of a count."""
    error = np.sqrt(expected * (1 - expected) / BLOCK)
    assert (np.abs(hits - expected) <= 4 * error + 1e-9).all()


def numpy_ratios(log_p):
    """Write the two ratios out with permutations of the samples that are some."""
    masses = np.exp(np.float64(log_p))
    alive = [one for one in range(len(masses)) if masses[one] > 0]
    chance = partial(chance_of_set, masses=masses)
    whole = chance(alive, [])
    first, second = np.full(len(masses), np.nan), np.full((len(masses),) * 2, np.nan)
    for s in alive:
        rest = [one for one in alive if one != s]
        first[s] = chance(rest, [s]) / whole
        for t in rest:
            second[s, t] = chance([one for one in rest if one != t], [s, t]) / chance(rest, [s])
        second[s, s] = 1
    return first, second


@pytest.mark.parametrize("count", [3, 9])
def test_choices_are_distinct_and_know_their_probability(count):
    samples, log_p = drawn(SMALL.logits, count)
    assert (np.diff(np.sort(samples, axis=1)) > 0).all()
    assert_close(np.exp(log_p), probabilities(SMALL.logits)[samples])


def test_the_order_has_the_law_of_drawing_one_after_the_other():
    samples, _ = drawn(SMALL.logits, 3)
    law = ordered_draws(3, tuple(probabilities(SMALL.logits)))
    assert_close(sum(law.values()), 1.0)
    counts = dict.fromkeys(law, 0)
    for order in map(tuple, samples.tolist()):
        counts[order] += 1
    # The likelier ones alone: a count of a few has no normal law.
    likely = [order for order, chance in law.items() if chance > 0.002]
    assert len(likely) > 50
    assert_shares(
        np.array([counts[order] / BLOCK for order in likely]),
        np.array([law[order] for order in likely]),
    )
    # The first is an ordinary sample; each choice is included as often as it should be.
    masses = probabilities(SMALL.logits)
    assert_shares(np.bincount(samples[:, 0], minlength=9) / BLOCK, masses)
    inclusion = np.zeros(9)
    for order, chance in law.items():
        inclusion[list(order)] += chance
    assert_close(inclusion.sum(), 3.0)
    assert_shares(np.bincount(samples.reshape(-1), minlength=9) / BLOCK, inclusion)


def test_banned_classes_are_never_alive():
    samples, log_p = drawn(BANNED.logits, 12)
    alive = np.isfinite(log_p)
    allowed = np.flatnonzero(probabilities(BANNED.logits))
    assert len(allowed) == 9
    # All that are not banned come first, in any order; what is left over is marked.
    assert (alive == (np.arange(12) < 9)).all()
    assert (np.sort(samples[:, :9], axis=1) == allowed).all()


def test_a_very_unequal_space_gives_distinct_choices():
    samples, log_p = drawn(PEAKED.logits, 4)
    assert (np.diff(np.sort(samples, axis=1)) > 0).all()
    assert np.isfinite(log_p).all()
    # Gumbel noise cannot beat a difference of 300.
    assert (samples[:, 0] == 0 * 4 + 1).all()


def test_long_rows_of_variables_are_sampled():
    samples, log_p = sample(KEY, make_problem(1, 3).logits.repeat(40, 0), 5)
    assert samples.shape == (5, 40)
    assert len(np.unique(samples, axis=0)) == 5
    assert all_finite(log_p)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_without_a_law_have_no_probability(bad):
    logits = SMALL.logits.copy()
    logits[1, 1] = bad
    assert np.isnan(sample(KEY, logits, 4)[1]).all()


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("dead", [0, 1, 2])
def test_leave_out_ratios_are_those_of_all_permutations(count, dead):
    masses = np.random.default_rng(count).dirichlet(np.ones(count + 2))[:count]
    masses = np.append(masses, np.zeros(dead)).astype(np.float32)
    with np.errstate(divide="ignore"):
        log_p = np.log(np.roll(masses, 1))
    expected = numpy_ratios(log_p)
    for one, two in zip(ratios_of(log_p), expected, strict=True):
        ratios, known = np.exp(one), np.isfinite(two)
        assert_close(ratios[known], two[known], rtol=1e-4)


@pytest.mark.parametrize("count", [2, 4])
def test_the_shares_sum_to_one(count):
    log_p = np.log(np.random.default_rng(count).dirichlet(np.ones(count + 2))[:count])
    first, second = ratios_of(log_p.astype(np.float32))
    assert_close(np.exp(log_p + first).sum(), 1.0)
    assert_close(np.exp(log_p + second).sum(1), np.ones(count))


def test_estimate_is_the_formula_written_out():
    block = draw_block(WithoutReplacement(3), SMALL)
    rows = np.exp(SMALL.logits) / np.exp(SMALL.logits).sum(1, keepdims=True)
    for value, gradient, samples in zip(*(part[:20] for part in block), strict=True):
        masses = np.prod(rows[range(2), samples], axis=1)
        f = SMALL.table[tuple(samples.T)]
        first, second = numpy_ratios(np.log(masses))
        assert_close(value, np.sum(masses * first * f), atol=1e-5)
        weights = masses * first * (f - second @ (masses * f))
        scores = np.eye(3)[samples] - rows
        assert_close(gradient, np.einsum("s,skc->kc", weights, scores), atol=1e-5)


@pytest.mark.parametrize(("name", "count"), [("one variable", 5), ("three variables", 8)])
def test_exact_if_all_choices_are_in_the_set(name, count):
    exact, whole = (
        estimate(one, PROBLEMS[name])[:2] for one in (Enumeration(), WithoutReplacement(count))
    )
    assert_close(whole, exact, atol=1e-5)


def test_more_draws_than_choices_that_are_not_banned():
    exact = estimate(Enumeration(), SCARCE)[:2]
    for one in (WithoutReplacement(5), Subset(4, informed=True)):
        assert_close(estimate(one, SCARCE)[:2], exact, atol=1e-5)


@pytest.mark.parametrize("scale", [30.0, 1e4, 1e30])
@pytest.mark.parametrize("estimator", [WithoutReplacement(4), Subset(4)], ids=str)
def test_peaked_logits_stay_finite(estimator, scale):
    problem = Problem(np.float32(scale) * np.eye(2, 4, k=1, dtype=np.float32), PEAKED.table)
    value, gradient, _ = estimate(estimator, problem)
    assert all_finite((value, gradient))
    if isinstance(estimator, WithoutReplacement):
        assert_close((value, gradient), (PEAKED.table[1, 2], np.zeros((2, 4))), atol=1e-5)


@pytest.mark.parametrize("estimator", [Enumeration(), WithoutReplacement(4), Subset(4)], ids=str)
def test_f_may_be_infinite_where_a_class_is_banned(estimator):
    @jax.jit
    @jax.value_and_grad
    def value_and_slope(parameters):
        def f(z):
            return jnp.log(parameters[z[0]])

        return estimator.estimate(KEY, SCARCE.logits, f).value

    # The logarithm of 0 stands only where a class is banned: its slope must not be felt.
    value, slope = value_and_slope(np.float32([1, 0, 1, 0, 1]))
    assert_close(value, 0.0)
    assert_close(slope, probabilities(SCARCE.logits), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "found", "expected", "change"),
    [
        (
            lambda: sample(KEY, SMALL.logits, 10),
            "10 distinct choices of 2 variables with 3 classes",
            "at most 3**2",
            "draw fewer",
        ),
        (
            lambda: estimate(WithoutReplacement(10), SMALL),
            "10 distinct choices",
            "at most 3**2 of them",
            "draw fewer",
        ),
        (
            lambda: estimate(Subset(10), SMALL),
            "10 distinct choices",
            "at most 3**2 of them",
            "draw fewer",
        ),
        (lambda: WithoutReplacement(1), "num_samples=1", "from 2 to 12", "static int"),
        (lambda: WithoutReplacement(2.0), "num_samples=2.0", "an int", "static int"),
        (lambda: WithoutReplacement(13), "num_samples=13", "from 2 to 12", "static int"),
        (lambda: Subset(1), "num_samples=1", "at least 2", "static int"),
        (lambda: sample(KEY, SMALL.logits, 0), "count=0", "at least 1", "static int"),
        (lambda: sample(KEY, SMALL.logits[0], 2), "logits of shape (3,)", "(any, any)", "reshape"),
    ],
)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
