import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.ops import DENSITIES, first_occurrence, mix_values, proportions
from tests.ops.examples import assert_close, make_tuples

SHAPE = (5, 7)


def example(*, count=4, num_points=20, seed=0):
    tuples = make_tuples(count, SHAPE, seed=seed, variance=2.0)
    generator = np.random.default_rng(seed)
    points = jnp.asarray(generator.integers(0, SHAPE, (num_points, 2)), jnp.int32)
    return points, first_occurrence(points, SHAPE), tuples


def closed_form(points, mask, tuples):
    means, variances, values = (np.asarray(part, np.float64) for part in tuples)
    points = np.asarray(points, np.float64)
    difference = points[:, None] - means
    density = np.exp(-0.5 * (difference**2 / variances).sum(-1)) * np.asarray(mask)[:, None]
    shares = density / density.sum(axis=0)
    centred = points[:, None] - np.einsum("pj,pc->jc", shares, points)
    spread = difference**2 - np.einsum("pj,pjc->jc", shares, difference**2)
    by_value = values[:, None] * shares[:, :, None]
    return shares, by_value * centred / variances, by_value * 0.5 * spread / variances**2


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gradients_agree_with_the_closed_form(seed):
    points, mask, tuples = example(seed=seed)
    jacobian = jax.jacobian(lambda *parts: mix_values(points, mask, *parts), argnums=(0, 1, 2))
    by_mean, by_variance, by_value = jax.jit(jacobian)(*tuples)
    shares, expected_mean, expected_variance = closed_form(points, mask, tuples)
    assert_close(by_value, shares)
    assert_close(by_mean, expected_mean, rtol=1e-4)
    assert_close(by_variance, expected_variance, rtol=1e-4)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("num_points", [1, 2, 40])
def test_value_is_shared_out_and_none_is_lost(density, num_points):
    points, mask, tuples = example(num_points=num_points)
    mixed = mix_values(points, mask, *tuples, density=density)
    assert_close(mixed.sum(), tuples.values.sum(), rtol=1e-4)
    assert (mixed[~mask] == 0).all()
    assert_close(mixed, proportions(points, mask, *tuples[:2], density=density) @ tuples.values)


def test_repeated_points_do_not_change_the_tensor():
    points, mask, tuples = example()
    distinct = points[mask]
    alone = mix_values(distinct, jnp.ones(len(distinct), bool), *tuples)
    assert_close(mix_values(points, mask, *tuples)[mask], alone)


def test_points_in_another_order_give_values_in_that_order():
    points, mask, tuples = example()
    order = jax.random.permutation(jax.random.key(0), len(points))
    mixed = mix_values(points, mask, *tuples)
    assert_close(mix_values(points[order], mask[order], *tuples), mixed[order])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_values_of_16_bits_are_summed_in_32(dtype):
    count = 4096
    means, variances, values = jnp.zeros((count, 1)), jnp.ones((count, 1)), jnp.ones(count, dtype)
    mixed = mix_values(jnp.zeros((1, 1), jnp.int32), jnp.ones(1, bool), means, variances, values)
    assert mixed.dtype == jnp.float32
    assert_close(mixed, [count])
