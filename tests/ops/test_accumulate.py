import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.ops import (
    ContinuousTuples,
    accumulate_over_ranges,
    hyperlayer,
    hyperlayer_hard,
)
from tests.ops.examples import assert_close, make_tuples

COUNT = 6
X = np.array([1.0, -2.0, 0.5], np.float32)
TARGET = np.array([0.5, 1.0, -1.0, 0.0], np.float32)


def squared_error(y, bias):
    return ((y + bias - TARGET) ** 2).sum()


def loss(key, tuples, bias, active):
    return squared_error(hyperlayer(key, tuples, X, (4,), active=active, num_global=2), bias)


def by_hand(key, chosen, bias, rest):
    soft = hyperlayer(key, chosen, X, (4,), num_global=2)
    return squared_error(soft + hyperlayer_hard(rest, X, (4,)), bias)


def example():
    return jax.random.key(4), make_tuples(COUNT, (4, 3), seed=3), jnp.full(4, 0.1)


@pytest.mark.parametrize("range_size", [1, 2])
def test_equals_a_block_estimator_written_out(range_size):
    key, tuples, bias = example()
    gradient = jax.jit(jax.value_and_grad(by_hand, argnums=(1, 2)))
    losses, blocks, biases = [], [], []
    for number in range(COUNT // range_size):
        inside = np.arange(number * range_size, (number + 1) * range_size)
        outside = np.setdiff1d(np.arange(COUNT), inside)
        chosen, rest = (
            jax.tree.map(lambda leaf, at=at: leaf[at], tuples) for at in (inside, outside)
        )
        value, grads = gradient(jax.random.fold_in(key, number), chosen, bias, rest)
        losses.append(value)
        blocks.append(grads[0])
        biases.append(grads[1])
    expected = (
        np.mean(losses),
        jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *blocks),
        np.mean(biases, axis=0),
    )

    @jax.jit
    def accumulated(tuples, bias):
        return accumulate_over_ranges(key, loss, tuples, bias, range_size=range_size)

    assert_close(accumulated(tuples, bias), expected, rtol=1e-4)


@pytest.mark.parametrize("range_size", [1, 3])
def test_a_shared_gradient_is_not_multiplied(range_size):
    key, tuples, bias = example()

    def only_bias(key, tuples, bias, active):
        return (bias**2).sum() + 0 * tuples.values.sum()

    value, by_tuples, by_bias = accumulate_over_ranges(
        key, only_bias, tuples, bias, range_size=range_size
    )
    assert_close((value, by_bias), ((bias**2).sum(), 2 * bias))
    assert all((leaf == 0).all() for leaf in by_tuples)


def test_every_pass_has_its_own_key_and_range():
    def seen(key, tuples, shared, active):
        start, size = active
        noise = jax.random.uniform(key)
        return (jax.lax.dynamic_slice_in_dim(tuples, start, size) * noise).sum() + shared

    key = jax.random.key(0)
    _, noises, _ = accumulate_over_ranges(key, seen, jnp.ones(4), jnp.float32(0), range_size=2)
    expected = [jax.random.uniform(jax.random.fold_in(key, number)) for number in range(2)]
    assert_close(noises, np.repeat(expected, 2))


def test_many_passes_of_16_bits_are_summed_in_32():
    def linear(key, tuples, shared, active):
        return (tuples + shared).sum()

    tuples, shared = jnp.ones(1024, jnp.bfloat16), jnp.ones(1, jnp.bfloat16)
    value, by_tuples, by_shared = accumulate_over_ranges(
        jax.random.key(0), linear, tuples, shared, range_size=1
    )
    assert {value.dtype, by_tuples.dtype, by_shared.dtype} == {jnp.dtype(jnp.bfloat16)}
    assert (value, by_shared) == (2048, 1024)
    assert (by_tuples == 1024).all()


def test_the_number_of_tuples_is_that_of_the_tuples():
    key, tuples, bias = example()
    result = accumulate_over_ranges(key, loss, tuples, bias, range_size=np.int64(3))

    def make(parameters):
        return ContinuousTuples(*parameters["network"])

    network = {"network": tuple(tuples)}
    value, by_network, by_bias = accumulate_over_ranges(
        key, loss, network, bias, range_size=3, tuples_of=make
    )
    assert_close((value, by_network["network"], by_bias), (result[0], tuple(result[1]), result[2]))
