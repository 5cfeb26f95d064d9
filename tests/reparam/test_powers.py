from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.reparam import inverse_power, power
from tests.ops.examples import assert_names_itself_and_its_cure

ALPHAS = [1, 1.25, 1.5, 1.75, 2, 2.3, 3, 5]
EDGES = np.array([0, 1, -1, 1e-30, -1e-30, 0.5, -0.03, 3.7, -20])
AWAY_FROM_ZERO = np.array([-2.5, -1, -0.4, -0.02, 0.003, 0.3, 1, 1.7])

power_jit = jax.jit(power, static_argnums=1)
inverse_jit = jax.jit(inverse_power, static_argnums=1)


def naive(theta, alpha):
    return np.sign(theta) * np.abs(theta) ** alpha


def bits(array):
    return np.asarray(array).view(np.uint32)


@pytest.mark.parametrize(
    ("dtype", "rounding"), [("float32", 1e-6), ("bfloat16", 2**-8), ("float64", 1e-15)]
)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_inverse_is_undone(alpha, dtype, rounding):
    with jax.enable_x64(dtype == "float64"):
        weights = jnp.asarray(EDGES, dtype)
        theta = inverse_jit(weights, alpha)
        again = power_jit(theta, alpha)
        assert theta.dtype == again.dtype == jnp.dtype(dtype)
        exact = np.asarray(weights, np.float64)
        np.testing.assert_allclose(
            np.asarray(theta, np.float64), naive(exact, 1 / alpha), rtol=2 * rounding
        )
        # The power multiplies relative errors by alpha.
        np.testing.assert_allclose(
            np.asarray(again, np.float64), exact, rtol=2 * (alpha + 1) * rounding
        )
        assert (again[:3] == weights[:3]).all()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_values_agree_with_the_formula(alpha):
    theta = EDGES.astype("f")
    # 1e-30 to the power of more than 1.26 is less than float32 holds.
    np.testing.assert_allclose(
        power_jit(theta, alpha), naive(theta.astype(float), alpha), rtol=3e-6, atol=1e-37
    )


@pytest.mark.parametrize("function", [power_jit, inverse_jit])
def test_alpha_one_is_the_identity_bit_for_bit(function):
    array = np.array([0.0, -0.0, 1e-45, -1e-38, np.nan, -np.inf, 0.1, -3e38], "f")
    assert (bits(function(array, 1)) == bits(array)).all()


def test_the_order_and_the_signs_of_zeros_survive():
    theta = np.sort(np.random.default_rng(0).normal(size=200)).astype("f")
    assert (np.diff(power_jit(theta, 2.3)) >= 0).all()
    assert np.signbit(power_jit(np.array([-0.0, 0.0], "f"), 2)).tolist() == [True, False]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_16_bits_are_raised_in_32(alpha):
    theta = jnp.asarray(AWAY_FROM_ZERO, jnp.bfloat16)
    exact = naive(np.asarray(theta, np.float64), alpha)
    # At most the rounding of the result, and of one product.
    np.testing.assert_allclose(np.asarray(power_jit(theta, alpha), np.float64), exact, rtol=2**-7)


@partial(jax.jit, static_argnums=(0, 2))
def both_modes(function, x, alpha):
    tangent = jnp.cos(x)
    _, forward = jax.jvp(lambda x: function(x, alpha), (x,), (tangent,))
    _, pull = jax.vjp(lambda x: function(x, alpha), x)
    second = jax.vmap(jax.grad(jax.grad(lambda x: function(x, alpha))))(x)
    return forward, pull(tangent)[0], second


@pytest.mark.parametrize("alpha", ALPHAS)
def test_derivatives_agree_with_closed_forms_and_differences(alpha):
    with jax.enable_x64(True):
        x = AWAY_FROM_ZERO
        forward, backward, second = both_modes(power, x, alpha)
    slope = alpha * np.abs(x) ** (alpha - 1)
    step = 1e-5 * np.abs(x)
    differences = (naive(x + step, alpha) - naive(x - step, alpha)) / (2 * step)
    np.testing.assert_allclose(forward, slope * np.cos(x), rtol=1e-12)
    np.testing.assert_allclose(backward, slope * np.cos(x), rtol=1e-12)
    np.testing.assert_allclose(backward, differences * np.cos(x), rtol=1e-8)
    curvature = alpha * (alpha - 1) * np.sign(x) * np.abs(x) ** (alpha - 2)
    np.testing.assert_allclose(second, curvature, rtol=1e-12)


@pytest.mark.parametrize("alpha", [1.5, 2.3, 3])
def test_derivatives_of_the_inverse(alpha):
    with jax.enable_x64(True):
        forward, backward, _ = both_modes(inverse_power, AWAY_FROM_ZERO, alpha)
    slope = np.abs(AWAY_FROM_ZERO) ** (1 / alpha - 1) / alpha
    np.testing.assert_allclose(forward, slope * np.cos(AWAY_FROM_ZERO), rtol=1e-12)
    np.testing.assert_allclose(backward, slope * np.cos(AWAY_FROM_ZERO), rtol=1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_derivatives_at_zero_are_finite(alpha):
    zeros = np.array([0.0, -0.0], "f")
    forward, backward, second = both_modes(power, zeros, alpha)
    expected = 1.0 if alpha == 1 else 0.0
    assert np.asarray(forward).tolist() == np.asarray(backward).tolist() == [expected] * 2
    assert np.isfinite(second).all()
    assert all(np.isfinite(part).all() for part in both_modes(inverse_power, zeros, alpha))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_derivatives_have_the_dtype_of_the_parameters(dtype):
    x = jnp.asarray(AWAY_FROM_ZERO, dtype)
    gradient = jax.grad(lambda x: jnp.sum(power(x, 1.5).astype(jnp.float32)))(x)
    assert gradient.dtype == x.dtype
    exact = 1.5 * np.abs(np.asarray(x, np.float64)) ** 0.5
    np.testing.assert_allclose(np.asarray(gradient, np.float64), exact, rtol=2**-6)


def loop(theta):
    return jax.lax.scan(lambda x, _: (power(x, 1.5), None), theta, length=3)[0]


TRANSFORMED = {
    "vmap": (jax.vmap(lambda x: power(x, 1.5)), 1.5),
    "jit": (jax.jit(lambda x: power(x, 1.5)), 1.5),
    "scan": (loop, 1.5**3),
    "checkpoint": (jax.checkpoint(loop), 1.5**3),
}


@pytest.mark.parametrize(("function", "alpha"), TRANSFORMED.values(), ids=TRANSFORMED)
def test_transforms(function, alpha):
    x = np.array([-1.2, -0.3, 0, 0.4, 1.1], "f")
    values, gradient = jax.jit(lambda x: (function(x), jax.grad(lambda x: function(x).sum())(x)))(x)
    np.testing.assert_allclose(values, naive(x, alpha), rtol=1e-5)
    np.testing.assert_allclose(gradient, alpha * np.abs(x) ** (alpha - 1), rtol=1e-5)


ONES = np.ones(3, "f")
MISTAKES = {
    "a root": (lambda: power(ONES, 0.5), "alpha=0.5", "at least 1", "static under jit"),
    "nan": (lambda: power(ONES, float("nan")), "alpha=nan", "at least 1", "alpha=2.0"),
    "infinity": (lambda: inverse_power(ONES, float("inf")), "alpha=inf", "at least 1", "alpha=2"),
    "a bool": (lambda: power(ONES, True), "alpha=True", "a Python number", "alpha=2.0"),
    "an array": (lambda: power(ONES, jnp.float32(2)), "alpha=Array", "a Python number", "static"),
    "traced": (lambda: jax.jit(power)(ONES, 2.0), "alpha=", "a Python number", "static under jit"),
    "text": (lambda: inverse_power(ONES, "2"), "alpha='2'", "a Python number", "alpha=2.0"),
    "ints": (lambda: power(np.arange(3), 2), "theta of dtype int32", "floats", "convert"),
    "bools": (lambda: inverse_power(ONES > 0, 2), "weights of dtype bool", "floats", "convert"),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
