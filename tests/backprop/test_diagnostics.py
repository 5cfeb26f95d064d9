import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.backprop import (
    gradient_cosine,
    init_memory,
    norm_ratio,
    share_of_units_used,
)
from tests.backprop.examples import random_array
from tests.ops.examples import assert_names_itself_and_its_cure

ONE = {"a": random_array(3, 4), "b": (random_array(5, seed=1),)}
TWO = {"a": random_array(3, 4, seed=2), "b": (random_array(5, seed=3),)}


def flat(tree):
    return np.concatenate([tree["a"].ravel(), tree["b"][0]]).astype(np.float64)


def scaled(tree, factor):
    return {"a": tree["a"] * np.float32(factor), "b": (tree["b"][0] * np.float32(factor),)}


def test_cosine_and_ratio_agree_with_numpy():
    one, two = flat(ONE), flat(TWO)
    lengths = np.linalg.norm(one), np.linalg.norm(two)
    assert gradient_cosine(ONE, TWO) == pytest.approx(one @ two / np.prod(lengths), abs=1e-6)
    assert norm_ratio(ONE, TWO) == pytest.approx(lengths[0] / lengths[1], rel=1e-5)


@pytest.mark.parametrize("factor", [1e-30, -2.0, 1e30])
def test_only_the_direction_counts_for_the_cosine(factor):
    assert gradient_cosine(ONE, scaled(ONE, factor)) == pytest.approx(np.sign(factor), abs=1e-6)
    assert norm_ratio(scaled(ONE, factor), ONE) == pytest.approx(abs(factor), rel=1e-5)


def test_zeros_have_no_direction():
    assert gradient_cosine(scaled(ONE, 0), ONE) == 0
    assert gradient_cosine(ONE, scaled(ONE, 0)) == 0
    assert norm_ratio(scaled(ONE, 0), ONE) == 0
    assert norm_ratio(ONE, scaled(ONE, 0)) == np.inf


@pytest.mark.parametrize("measure", [gradient_cosine, norm_ratio])
def test_what_is_not_a_number_is_not_hidden(measure):
    broken = {"a": ONE["a"] * np.float32(np.nan), "b": ONE["b"]}
    assert np.isnan(measure(broken, ONE))
    assert np.isnan(measure(ONE, broken))


def test_half_precision_is_measured_in_single():
    half = {"a": jnp.full(70000, 1e-4, jnp.float16)}
    assert gradient_cosine(half, half) == pytest.approx(1, abs=1e-5)
    assert norm_ratio(half, half).dtype == jnp.float32


def test_used_units_are_counted():
    memory = init_memory("none", (2, 4), count=True)
    assert share_of_units_used(memory) == 0
    assert share_of_units_used(memory._replace(counts=jnp.array([0.0, 3, 0, 1]))) == 0.5


MISTAKES = {
    "other trees": (lambda: gradient_cosine(ONE, {"a": 1}), "shapes", "the same", "layout"),
    "no tree": (lambda: norm_ratio(ONE, ONE["a"]), "shapes", "the same", "same parameters"),
    "another layout": (
        lambda: gradient_cosine({"w": jnp.ones((2, 3))}, {"w": jnp.ones((3, 2))}),
        "(2, 3)} and {'w': (3, 2)",
        "the same arrays",
        "the same layout",
    ),
    "no counts": (
        lambda: share_of_units_used(init_memory("none")),
        "a memory without counts",
        "one that counts",
        "count=True",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
