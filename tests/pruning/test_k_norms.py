from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.pruning import k_support_norm, top_k_norm
from tests.ops.examples import assert_names_itself_and_its_cure

N = 12
KS = (1, 3, 7, 12)


def rows(count=40, seed=0):
    """Random rows, and some with zeros, equal entries and very different sizes."""
    generator = np.random.default_rng(seed)
    special = np.zeros((4, N))
    special[0] = 0.3
    special[1, 2:4] = 3, -4
    special[2] = 10.0 ** -np.arange(N)
    special[3, :6] = 1
    return np.concatenate([generator.normal(size=(count, N)), special]).astype("f")


def by_the_two_inequalities(x, k):
    """The definition, in 64 bits: r is the one number for which both hold."""
    s = -np.sort(-np.abs(x.astype(np.float64)))
    found = []
    for r in range(k):
        tail = s[k - r - 1 :].sum()
        mean = tail / (r + 1)
        before = np.inf if k - r - 1 == 0 else s[k - r - 2]
        if before > mean >= s[k - r - 1] - 1e-12:
            found.append(np.sqrt((s[: k - r - 1] ** 2).sum() + tail**2 / (r + 1)))
    assert np.ptp(found) < 1e-9  # one, or several where it makes no difference
    return found[0]


def slopes(function, k):
    return jax.jit(jax.vmap(jax.value_and_grad(partial(function, k=k))))


@pytest.mark.parametrize("k", KS)
def test_each_is_the_dual_of_the_other(k):
    """The certificate: y in the dual ball with <x, y> = N(x) shows N(x) from both sides."""
    x = rows()[:, :N]
    for one, dual in ((k_support_norm, top_k_norm), (top_k_norm, k_support_norm)):
        value, y = slopes(one, k)(x)
        np.testing.assert_allclose(np.sum(x * y, axis=1), value, rtol=2e-6)
        np.testing.assert_allclose(dual(y, k), 1, rtol=2e-6)


@pytest.mark.parametrize("k", KS)
def test_the_definitions(k):
    x = rows()
    largest = -np.sort(-np.abs(x.astype(np.float64)))[:, :k]
    np.testing.assert_allclose(top_k_norm(x, k), np.linalg.norm(largest, axis=1), rtol=1e-6)
    expected = [by_the_two_inequalities(row, k) for row in x]
    np.testing.assert_allclose(k_support_norm(x, k), expected, rtol=1e-6)


def test_the_ends_are_known_norms():
    x = rows()
    np.testing.assert_allclose(k_support_norm(x, 1), np.abs(x).sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(top_k_norm(x, 1), np.abs(x).max(axis=1), rtol=1e-6)
    for function in (k_support_norm, top_k_norm):
        np.testing.assert_allclose(function(x, N), np.linalg.norm(x, axis=1), rtol=1e-6)


def test_they_are_norms_that_ignore_signs_and_order():
    generator = np.random.default_rng(1)
    x, y = rows(), rows(seed=1)
    mixed = np.take_along_axis(-x, np.argsort(generator.random(x.shape), axis=1), axis=1)
    for k in KS:
        for function in (k_support_norm, top_k_norm):
            one, two, both = (np.asarray(function(part, k)) for part in (x, y, x + y))
            assert (both <= one + two + 1e-5).all()
            np.testing.assert_allclose(function(2.5 * x, k), 2.5 * one, rtol=1e-5)
            np.testing.assert_allclose(function(mixed, k), one, rtol=1e-5)


def test_they_fall_and_rise_with_k_and_agree_with_the_length_of_sparse_rows():
    x = rows()
    supports = [np.asarray(k_support_norm(x, k)) for k in range(1, N + 1)]
    assert (np.diff(supports, axis=0) <= 1e-5).all()
    assert (np.diff([top_k_norm(x, k) for k in range(1, N + 1)], axis=0) >= -1e-6).all()
    x[:, 4:] = 0
    for k in (4, 6):
        np.testing.assert_allclose(k_support_norm(x, k), np.linalg.norm(x, axis=1), rtol=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_neither_squares_nor_sums_overflow_or_vanish(size):
    x = rows()[:5]
    for function in (k_support_norm, top_k_norm):
        expected = np.asarray(function(x, 3), np.float64) * size
        np.testing.assert_allclose(function(x * np.float32(size), 3), expected, rtol=1e-5)
    assert np.isfinite(k_support_norm(np.full(N, 1e37, "f"), 1))


def test_a_norm_along_any_axis_in_32_bits():
    x = np.random.default_rng(2).normal(size=(3, 5, 4)).astype("f")
    for function in (k_support_norm, top_k_norm):
        got = function(x, 2, axis=1)
        np.testing.assert_allclose(got, function(np.moveaxis(x, 1, -1), 2), rtol=1e-6)
        assert function(jnp.asarray(x, jnp.bfloat16), 2).dtype == jnp.float32


def test_the_slope_at_nothing_is_nothing_and_what_is_no_number_shows():
    for function in (k_support_norm, top_k_norm):
        value, slope = slopes(function, 2)(np.zeros((1, 4), "f"))
        assert not value.any()
        assert not slope.any()
        assert jnp.isnan(function(jnp.array([1.0, jnp.nan, 2.0]), 2))
        assert function(jnp.array([1.0, -jnp.inf, 2.0]), 2) == jnp.inf


MISTAKES = {
    "none": (lambda: top_k_norm(np.ones(3), 0), "k=0", "from 1 to 3", "pass a static int"),
    "too many": (lambda: k_support_norm(np.ones(3), 4), "k=4", "from 1 to 3", "as k"),
    "a share": (lambda: k_support_norm(np.ones(3), 0.5), "k=0.5", "an int", "as k"),
    "a scalar": (lambda: top_k_norm(1.0, 1), "shape ()", "an axis", "change axis"),
    "words": (lambda: top_k_norm("abc", 1), "x='abc'", "real numbers", "convert x"),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
