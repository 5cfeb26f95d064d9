from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.backprop import (
    ImportanceSampling,
    RandomK,
    TopK,
    UnifiedRandomK,
    sparse_dense,
)
from tests.backprop.examples import random_array
from tests.ops.examples import assert_close

ROWS, WIDTHS = 3, (4, 6, 5)
X = random_array(ROWS, WIDTHS[0])
KERNELS = tuple(random_array(n, m, seed=n) for m, n in pairwise(WIDTHS))
UNBIASED = {
    "RandomK": RandomK(2),
    "UnifiedRandomK": UnifiedRandomK(2),
    "ImportanceSampling": ImportanceSampling(2),
}
UNSCALED = {
    "RandomK": RandomK(2, rescale=False),
    "UnifiedRandomK": UnifiedRandomK(2, rescale=False),
}


def gradients(layer):
    def loss(x, kernels):
        h = jnp.tanh(layer(0, x, kernels[0]))
        return jnp.sum(jnp.sin(layer(1, h, kernels[1])))

    return jax.grad(loss, argnums=(0, 1))(X, KERNELS)


@partial(jax.jit, static_argnums=(0, 1))
def draw(sparsifier, count):
    def once(key):
        keys = jax.random.split(key)
        return gradients(lambda i, x, w: sparse_dense(keys[i], x, w, sparsifier=sparsifier))

    return jax.vmap(once)(jax.random.split(jax.random.key(5), count))


def flatten(dx, kernels, lead=()):
    return np.concatenate([np.reshape(leaf, (*lead, -1)) for leaf in (dx, *kernels)], axis=-1)


def draws(sparsifier, count=8192):
    return flatten(*draw(sparsifier, count), lead=(count,)).astype(np.float64)


def dense():
    return flatten(*gradients(lambda _, x, kernel: x @ kernel.T))


def scores(sample, expected):
    deviation = sample.std(0) / np.sqrt(len(sample))
    return np.abs(sample.mean(0) - expected) / (deviation + 1e-7)


@pytest.mark.parametrize("name", UNBIASED)
def test_the_mean_through_two_layers_is_the_dense_gradient(name):
    sample = draws(UNBIASED[name])
    assert sample.std(0).max() > 0.1
    assert scores(sample, dense()).max() < 4.5


@pytest.mark.parametrize("name", UNBIASED)
def test_the_error_of_the_mean_falls_with_the_root_of_the_draws(name):
    sample = draws(UNBIASED[name])
    # Means of 32 and of 512 draws: sixteen times as many, a quarter of the error.
    few, many = (
        np.sqrt(np.mean((sample.reshape(-1, size, sample.shape[1]).mean(1) - dense()) ** 2))
        for size in (32, 512)
    )
    assert 3 < few / many < 5.3


@pytest.mark.parametrize("name", UNSCALED)
def test_without_rescaling_each_layer_takes_its_share(name):
    sample, (dx, kernels) = draws(UNSCALED[name]), gradients(lambda _, x, w: x @ w.T)
    last, first = 2 / WIDTHS[2], 2 / WIDTHS[1]
    both = last * first
    expected = flatten(both * dx, (both * kernels[0], last * kernels[1]))
    assert scores(sample, expected).max() < 4.5
    assert scores(sample, dense()).max() > 20


def test_the_largest_components_are_biased():
    sample = draws(TopK(2), 2)
    assert_close(sample[0], sample[1])
    assert np.abs(sample[0] - dense()).max() > 0.1
