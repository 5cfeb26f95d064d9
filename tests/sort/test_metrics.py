import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.sort import element_match, exact_match, metrics, spearman
from tests.ops.examples import assert_names_itself_and_its_cure


@pytest.mark.parametrize(
    ("keys", "labels", "exact", "element"),
    [
        ([0.1, 0.2, 0.3], [4, 5, 9], True, 1),
        ([0.1, 0.3, 0.2], [4, 5, 9], False, 1 / 3),
        ([3.0, 2.0, 1.0, 0.0], [9, 7, 7, 1], True, 1),
        ([3.0, 1.5, 2.0, 0.0], [9, 7, 7, 1], True, 1),
        ([3.0, 2.0, 1.0, 0.0], [7, 9, 7, 1], False, 0.5),
        ([5.0, -1.0, 2.0], [7, 7, 7], True, 1),
        ([1.0, 1.0, 1.0], [1, 2, 3], True, 1),
        ([1.0, 1.0, 1.0], [3, 2, 1], False, 1 / 3),
        ([0.0], [3], True, 1),
    ],
)
def test_known_cases(keys, labels, exact, element):
    keys, labels = jnp.array(keys), jnp.array(labels)
    assert bool(exact_match(keys, labels)) is exact
    np.testing.assert_allclose(element_match(keys, labels), element, rtol=1e-6)


def test_ties_are_right_in_every_order():
    labels = jax.random.randint(jax.random.key(0), (200, 16), 0, 10)
    noise = jax.random.uniform(jax.random.key(1), labels.shape, maxval=0.9)
    keys = labels + noise
    assert exact_match(keys, labels).all()
    # The comparison of permutations, which is not safe, calls most of these wrong.
    same = (jnp.argsort(keys) == jnp.argsort(labels)).all(-1)
    assert same.mean() < 0.1


def test_leading_axes():
    keys = jax.random.normal(jax.random.key(0), (2, 3, 5))
    labels = jax.random.randint(jax.random.key(1), (2, 3, 5), 0, 4)
    exact, element = jax.jit(exact_match)(keys, labels), jax.jit(element_match)(keys, labels)
    assert exact.shape == element.shape == (2, 3)
    assert exact.dtype == jnp.bool_
    for i, j in np.ndindex(2, 3):
        placed = np.asarray(labels)[i, j][np.argsort(keys[i, j])] == np.sort(labels[i, j])
        np.testing.assert_allclose(element[i, j], placed.mean(), rtol=1e-6)
        assert bool(exact[i, j]) == placed.all()


@pytest.mark.parametrize(
    ("keys", "labels", "expected"),
    [
        ((4, 1), 4, "the same shape"),
        (3, 4, "the same shape"),
        ((), (), "one element"),
        (0, 0, "one"),
    ],
)
def test_wrong_shapes(keys, labels, expected):
    for metric in (exact_match, element_match):
        with pytest.raises(ValueError, match=expected):
            metric(jnp.zeros(keys), jnp.zeros(labels))


def test_nothing_with_a_nan_is_right():
    nan = np.nan
    keys = [[0, 1, 2], [0, 1, nan], [nan, nan, nan], [0, 1, 2]]
    labels = [[4, 5, 6], [4, 5, 6], [4, 5, 6], [4, 5, nan]]
    np.testing.assert_array_equal(exact_match(keys, labels), [True, False, False, False])
    np.testing.assert_array_equal(element_match(keys, labels), [1, nan, nan, nan])


def test_a_correlation_of_very_many_ranks():
    n = 1e8
    sums = np.array([[1, 1, 1], [-1, 1, 1], [0.5, 1, 1]], np.float32) * (n**3 / 12)
    np.testing.assert_allclose(jax.jit(metrics._correlation)(sums), [1, -1, 0.5], rtol=1e-6)


@pytest.mark.parametrize("wrong", [None, "ab", [[1], [2, 3]]])
def test_what_is_no_array_names_itself_and_its_cure(wrong):
    for name in ("keys", "labels"):
        call = {"keys": [1, 2], "labels": [1, 2]} | {name: wrong}
        assert_names_itself_and_its_cure(
            lambda call=call: spearman(**call), f"{name}=", "an array of real", f"convert {name}"
        )
