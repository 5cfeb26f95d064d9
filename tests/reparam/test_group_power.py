from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.reparam import group_power, inverse_group_power
from sparse_hyper_jax.reparam.powers import group_slope
from tests.ops.examples import all_finite, assert_names_itself_and_its_cure

GROUPS = [((4, 3), (0,)), ((4, 3), (-1,)), ((2, 3, 2), (0, 2)), ((5,), (0,))]
ALPHAS = [1, 1.5, 2, 2.3, 3]

forward_jit = jax.jit(group_power, static_argnums=(1, 2))
inverse_jit = jax.jit(inverse_group_power, static_argnums=(1, 2))


def example(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def naive(theta, alpha, axes, library=np):
    norm = library.sqrt(library.sum(theta**2, axis=axes, keepdims=True))
    return norm ** (alpha - 1) * theta


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("shape", "axes"), GROUPS)
def test_values_agree_with_the_formula_and_the_inverse_undoes_them(shape, axes, alpha):
    theta = example(shape)
    weights = forward_jit(theta.astype("f"), alpha, axes)
    np.testing.assert_allclose(weights, naive(theta, alpha, axes), rtol=1e-5)
    np.testing.assert_allclose(inverse_jit(weights, alpha, axes), theta, rtol=1e-5)
    again = forward_jit(inverse_jit(theta.astype("f"), alpha, axes), alpha, axes)
    np.testing.assert_allclose(again, theta, rtol=1e-5)


@pytest.mark.parametrize("alpha", [2, 3, 2.5])
@pytest.mark.parametrize(("shape", "axes"), GROUPS)
def test_decay_of_theta_penalises_the_norms_of_groups(shape, axes, alpha):
    theta = example(shape).astype("f")
    weights = np.asarray(forward_jit(theta, alpha, axes), np.float64)
    norms = np.sqrt(np.sum(weights**2, axis=axes))
    np.testing.assert_allclose(np.sum(norms ** (2 / alpha)), np.sum(theta**2), rtol=1e-5)


@partial(jax.jit, static_argnums=(1, 2))
def jacobians(theta, alpha, axes):
    def both(function):
        return jax.jacrev(function)(theta), jax.jacfwd(function)(theta)

    return both(lambda x: group_power(x, alpha, axes)), both(lambda x: naive(x, alpha, axes, jnp))


@pytest.mark.parametrize("alpha", [1, 1.5, 2, 2.3])
@pytest.mark.parametrize(("shape", "axes"), GROUPS)
def test_the_jacobian_is_that_of_the_formula(shape, axes, alpha):
    with jax.enable_x64(True):
        ours, expected = jacobians(example(shape), alpha, axes)
        for one, two in zip(ours, expected, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-12)


def test_the_slope_multiplies_with_the_jacobian():
    theta, vector = example((4, 3)), example((4, 3), seed=1)
    with jax.enable_x64(True):
        (jacobian, _), _ = jacobians(theta, 2.3, (0,))
        product = group_slope(jnp.asarray(theta), jnp.asarray(vector), 2.3, (0,))
    np.testing.assert_allclose(product, np.einsum("abcd,cd->ab", jacobian, vector), rtol=1e-10)


@pytest.mark.parametrize("function", [group_power, inverse_group_power])
@pytest.mark.parametrize("alpha", [1, 1.25, 1.5, 2, 3])
def test_a_group_of_zeros_is_finite_and_the_others_do_not_notice(alpha, function):
    theta = example((4, 3)).astype("f")
    theta[:, 1] = 0

    @jax.jit
    def everything(theta):
        def total(theta):
            return jnp.sum(jnp.sin(function(theta, alpha, (0,))))

        gradient = jax.grad(total)
        curvature = jax.jvp(gradient, (theta,), (jnp.ones_like(theta),))[1]
        return function(theta, alpha, (0,)), gradient(theta), curvature

    results = everything(theta)
    assert all_finite(results)
    assert not results[0][:, 1].any()
    exponent = alpha if function is group_power else 1 / alpha
    others = theta[:, [0, 2]].astype(float)
    np.testing.assert_allclose(results[0][:, [0, 2]], naive(others, exponent, (0,)), rtol=1e-5)


def test_a_group_of_one_entry_is_the_power_of_the_entry():
    theta = example((4, 1)).astype("f")
    expected = theta * np.abs(theta) ** 1.5
    np.testing.assert_allclose(forward_jit(theta, 2.5, (1,)), expected, rtol=1e-5)


def test_16_bits_stay_16_bits():
    theta = jnp.asarray(example((4, 3)), jnp.bfloat16)
    weights = forward_jit(theta, 2, (0,))
    assert weights.dtype == jnp.bfloat16
    exact = naive(np.asarray(theta, np.float64), 2, (0,))
    np.testing.assert_allclose(np.asarray(weights, np.float64), exact, rtol=2**-7)


ONES = np.ones((2, 3), "f")
MISTAKES = {
    "no tuple": (lambda: group_power(ONES, 2, [0]), "axes=[0]", "a tuple of axes", "axes=(0,)"),
    "an int": (lambda: inverse_group_power(ONES, 2, 0), "axes=0", "a tuple of axes", "axes=(0,)"),
    "no axis": (lambda: group_power(ONES, 2, ()), "axes=()", "along which", "axes=(0,)"),
    "too far": (lambda: group_power(ONES, 2, (2,)), "with 2 axes", "of the array", "axes=(0,)"),
    "a root": (lambda: group_power(ONES, 0.9, (0,)), "alpha=0.9", "at least 1", "alpha=2.0"),
    "ints": (lambda: group_power(ONES.astype(int), 2, (0,)), "int", "floats", "convert"),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)


def test_tiny_groups_do_not_become_zero():
    theta = jnp.full((4, 2), 1e-25, jnp.float32)
    np.testing.assert_allclose(inverse_group_power(theta, 2.0, (0,)), 1e-25 / 2e-25**0.5, rtol=1e-4)
    huge = jnp.full((4, 2), 1e25, jnp.float32)
    assert jnp.isfinite(inverse_group_power(huge, 2.0, (0,))).all()


@pytest.mark.parametrize("size", [1e-36, 1e-25, 1e-19, 1e19])
def test_second_derivatives_are_finite_and_right_at_every_size(size):
    """With alpha = 2 they have no unit: the power is of second order."""

    @jax.jit
    def curvature(theta):
        def slope(theta):
            return jax.vjp(lambda theta: group_power(theta, 2.0, (0,)), theta)[1](VECTOR)[0]

        return jax.jvp(slope, (theta,), (jnp.ones_like(theta),))[1]

    theta = example((4, 3)).astype("f")
    scaled = np.float32(size) * theta
    np.testing.assert_allclose(curvature(scaled), curvature(theta), rtol=1e-4, atol=1e-5)


def test_a_group_with_nan_is_nan():
    theta = jnp.ones((2, 2)).at[0, 0].set(jnp.nan)
    for function in (group_power, inverse_group_power):
        assert jnp.isnan(function(theta, 2.0, (0,))).tolist() == [[True, False]] * 2


VECTOR = example((4, 3), seed=1).astype("f")
