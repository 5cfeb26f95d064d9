from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax.nn.key_networks import NumberKeyNetwork

SMALL = {"channels": (4,), "features": 5, "hidden": 7}


def count(module):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def images(*shape):
    return np.random.default_rng(0).uniform(size=shape).astype(np.float32)


@nnx.jit
def call(net, x):
    return net(x)


@cache
def maker(*sizes, **options):
    return nnx.jit(lambda key: NumberKeyNetwork(*sizes, rngs=nnx.Rngs(key), **options))


def made(*sizes, seed=0, **options):
    return maker(*sizes, **options)(jax.random.key(seed))


def never_run(*sizes, **options):
    """A network without numbers in it, which takes no time to make."""
    return nnx.eval_shape(lambda: NumberKeyNetwork(*sizes, rngs=nnx.Rngs(0), **options))


def shape_of_keys(net, *shape):
    return nnx.eval_shape(lambda net, x: net(x), net, jax.ShapeDtypeStruct(shape, np.float32)).shape


def check_leading_axes(net, digits, height, width):
    """Each image has a key of its own, however many axes stand before it."""
    x = images(2, 3, height, digits * width)
    keys = call(net, x)
    assert keys.shape == (2, 3)
    np.testing.assert_allclose(call(net, x[0, 0]), keys[0, 0], atol=1e-6)
    swapped = call(net, np.stack([x[1], np.zeros_like(x[0])]))
    np.testing.assert_allclose(swapped[0], keys[1], atol=1e-6)
    assert np.unique(keys).size == 6


@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (9, 13), (4, 4)])
def test_one_digit(height, width):
    sizes = {"channels": (4, 6), "features": 10, "hidden": 20}
    net = never_run(1, height, width, **sizes)
    flat = (height // 2 // 2) * (width // 2 // 2) * 6
    convolutions = (9 * 4 + 4) + (9 * 4 * 6 + 6)
    assert count(net) == convolutions + (flat * 10 + 10) + (10 * 20 + 20) + (20 + 1)
    for leading in ((2, 3), (3,), ()):
        assert shape_of_keys(net, *leading, height, width) == leading


def test_one_digit_of_odd_sides():
    check_leading_axes(made(1, 5, 7, **SMALL), 1, 5, 7)


@pytest.mark.parametrize("digits", [1, 3])
def test_number_network(digits):
    net = never_run(digits, 8, 8, **SMALL)
    encoder = (9 * 4 + 4) + (4 * 4 * 4 * 5 + 5)
    assert count(net) == encoder + (digits * 5 * 7 + 7) + (7 + 1)
    for leading in ((2, 3), ()):
        assert shape_of_keys(net, *leading, 8, digits * 8) == leading


def test_number_network_of_three_digits():
    check_leading_axes(made(3, 4, 4, **SMALL), 3, 4, 4)


def test_number_network_reads_digits_in_order():
    net = made(2, 4, 4, **SMALL)
    left, right = images(2, 4, 4)
    key, swapped = call(net, np.stack([np.hstack([left, right]), np.hstack([right, left])]))
    assert abs(key - swapped) > 1e-4

    # One encoder for all places: tile by tile, the features are those of the single digits.
    @nnx.jit
    def by_tile(net, tiles):
        features = nnx.relu(net.encoder(tiles)).reshape(1, -1)
        return net.key(nnx.relu(net.mixer(features)))[0, 0]

    np.testing.assert_allclose(key, by_tile(net, np.stack([left, right])), atol=1e-6)


def test_training_step():
    net, x = made(2, 4, 4, **SMALL), images(5, 4, 8)
    graph, params = nnx.split(net)

    @jax.jit
    def train(params):
        def loss(params):
            return jnp.square(nnx.merge(graph, params)(x) - jnp.arange(5.0)).mean()

        def step(params, _):
            value, slope = jax.value_and_grad(loss)(params)
            return jax.tree.map(lambda p, g: p - 0.02 * g, params, slope), value

        return jax.lax.scan(step, params, length=20)

    trained, losses = train(params)
    assert losses[-1] < losses[0]
    moved = jax.tree.map(lambda a, b: np.abs(np.subtract(a, b)).max(), params, trained)
    assert all(leaf > 0 for leaf in jax.tree.leaves(moved))


def test_same_seed_same_network():
    x = images(4, 4, 4)
    keys = [np.asarray(call(made(1, 4, 4, seed=seed, **SMALL), x)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(keys[0], keys[1])
    assert not np.array_equal(keys[0], keys[2])


def test_wrong_input():
    net = never_run(1, 8, 8)
    for shape in [(3, 28, 28), (3, 8, 8, 1), (8,)]:
        with pytest.raises(ValueError, match=r"\(..., 8, 8\)"):
            net(np.zeros(shape))
    with pytest.raises(ValueError, match=r"\(..., 8, 24\)"):
        never_run(3, 8, 8)(np.zeros((2, 8, 16)))
    with pytest.raises(ValueError, match="digits=0"):
        NumberKeyNetwork(0, 8, 8, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="height=0"):
        NumberKeyNetwork(1, 0, 8, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="features=0"):
        NumberKeyNetwork(1, 8, 8, rngs=nnx.Rngs(0), features=0)
