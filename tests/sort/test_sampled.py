import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.sort import draw_sort
from sparse_hyper_jax.sort.buckets import buckets_at
from tests.folding import folded
from tests.ops.examples import all_finite, assert_names_itself_and_its_cure

KEYS = jnp.array([0.3, -0.9, 0.8, 0.1])
TRIALS = jax.random.split(jax.random.key(0), 20_000)
CERTAINTY = 2.0


@cache
def drawn():
    """Orders of KEYS, many times."""

    def draw(key):
        return draw_sort(key, KEYS, jnp.arange(4), certainty=CERTAINTY)

    return jax.device_get(jax.jit(jax.vmap(draw))(TRIALS))


def exact_law(keys):
    """Probability of every order of four keys, from the formula, without the library."""

    def halvings(members):
        chosen = list(itertools.combinations(members, len(members) // 2))
        scores = np.array([CERTAINTY * sum(keys[i] for i in up) for up in chosen], float)
        odds = np.exp(scores - scores.max())
        for up, chance in zip(chosen, odds / odds.sum(), strict=True):
            yield [i for i in members if i not in up], list(up), chance

    law = {}
    for low, high, first in halvings(range(4)):
        for (a, b, second), (c, d, third) in itertools.product(halvings(low), halvings(high)):
            order = (*a, *b, *c, *d)
            law[order] = law.get(order, 0) + first * second * third
    return law


def test_orders_have_the_law_of_the_formula():
    law = exact_law(np.asarray(KEYS, float))
    assert sum(law.values()) == pytest.approx(1)
    orders, counts = np.unique(drawn().payload, axis=0, return_counts=True)
    assert len(law) == 24
    found = {tuple(order): count for order, count in zip(orders.tolist(), counts, strict=True)}
    for order, chance in law.items():
        error = 4 * np.sqrt(chance * (1 - chance) * len(TRIALS)) + 1
        assert abs(found.get(order, 0) - chance * len(TRIALS)) < error


def test_log_probability_is_that_of_the_order():
    result = drawn()
    law = exact_law(np.asarray(KEYS, float))
    expected = [np.log(law[tuple(order)]) for order in np.asarray(result.payload[:200]).tolist()]
    assert np.allclose(result.log_probability[:200], expected, atol=1e-4)


def test_the_mean_score_is_zero():
    score = jax.grad(
        lambda keys, key: draw_sort(key, keys, keys, certainty=CERTAINTY).log_probability
    )
    scores = jax.jit(jax.vmap(score, in_axes=(None, 0)))(KEYS, TRIALS)
    error = scores.std(0) / len(TRIALS) ** 0.5
    assert (np.abs(scores.mean(0)) < 4 * error).all()
    assert (error > 0).all()


SIZES = list(itertools.product([1, 2, 3, 5, 8, 13], [2, 16]))


@folded
def draws():
    def draw(num_candidates):
        def one(key, keys):
            payload = {"place": jnp.arange(len(keys)), "key": keys}
            return draw_sort(key, keys, payload, num_candidates=num_candidates)

        return jax.vmap(one, (0, None))

    keys = {n: np.random.default_rng(n).normal(size=n).astype(np.float32) for n, _ in SIZES}
    return {(n, candidates): (draw(candidates), TRIALS[:50], keys[n]) for n, candidates in SIZES}


@pytest.mark.parametrize(("n", "num_candidates"), SIZES)
def test_what_is_drawn_is_a_permutation(n, num_candidates):
    result = jax.device_get(draws(n, num_candidates))
    keys = np.random.default_rng(n).normal(size=n).astype(np.float32)
    assert (np.sort(result.payload["place"], axis=1) == np.arange(n)).all()
    assert (result.payload["key"] == result.keys).all()
    assert (result.payload["key"] == keys[result.payload["place"]]).all()
    assert (result.log_probability <= 0).all()


def test_great_certainty_sorts():
    keys = np.random.default_rng(1).permutation(12).astype(np.float32)
    draw = jax.jit(jax.vmap(lambda key: draw_sort(key, keys, keys, certainty=1e4)))
    result = draw(TRIALS[:20])
    assert (result.payload == np.sort(keys)).all()
    assert np.allclose(result.log_probability, 0)


@jax.jit
def slope(keys):
    return jax.grad(lambda keys: draw_sort(TRIALS[0], keys, keys).log_probability)(keys)


@pytest.mark.parametrize("keys", [[1.0] * 6, [1e30, -1e30, 0, 1e30, 1, 2], [5.0]])
def test_gradients_are_finite_for_awkward_keys(keys):
    assert all_finite(slope(np.array(keys, np.float32)))


def test_no_gradient_reaches_the_payload_through_the_keys():
    gradient = jax.grad(lambda keys: draw_sort(TRIALS[0], keys, jnp.eye(4)).payload.sum())
    assert (jax.jit(gradient)(KEYS) == 0).all()


def test_levels_are_those_of_the_quicksort():
    # One bucket of five, then of two and three, then of one, one, one and two.
    assert [len(buckets_at(5, level).sizes) for level in range(3)] == [1, 2, 4]
    shapes = jax.eval_shape(draw_sort, TRIALS[0], np.zeros(5, np.float32), np.arange(5))
    assert shapes.payload.shape == (5,)


MISTAKES = {
    "no key": (lambda: draw_sort(None, KEYS, KEYS), "key", "key", "pass"),
    "another length": (
        lambda: draw_sort(TRIALS[0], KEYS, jnp.ones(3)),
        "shape (3,)",
        "leading axis 4",
        "front",
    ),
    "a batch": (lambda: draw_sort(TRIALS[0], KEYS[None], KEYS), "(1, 4)", "(n,)", "reshape"),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
