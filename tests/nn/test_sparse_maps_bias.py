import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax.ops import settle
from tests.ops.examples import assert_close, scatter

from .examples import BIASES, X, at_once, new_layer


@pytest.mark.parametrize("bias", BIASES)
def test_bias_has_its_parameters_and_gradients(bias):
    target = np.random.default_rng(4).normal(size=(3, 2, 3)).astype(np.float32)

    @at_once
    def gradient():
        layer = new_layer(out_shape=(2, 3), region=(2, 2, 2), **BIASES[bias])
        slopes = nnx.grad(lambda layer: jnp.sum((layer(X) - target) ** 2))(layer)
        return nnx.to_pure_dict(slopes)

    shapes = jax.tree.map(jnp.shape, gradient)
    assert shapes.pop("source") == {"raw_means": (6, 3), "raw_variances": (6,), "values": (6,)}
    expected = {
        "none": {},
        "dense": {"bias": (2, 3)},
        "sparse": {"bias_source": {"raw_means": (3, 2), "raw_variances": (3,), "values": (3,)}},
    }
    assert shapes == expected[bias]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("deterministic", [True, False])
def test_dense_bias_starts_at_zero_and_is_added_everywhere(deterministic):
    @at_once
    def results():
        options = {"deterministic": deterministic, "rngs": jax.random.key(0)}
        plain, layer = new_layer(), new_layer(bias="dense")
        start = layer.bias[...]
        layer.bias[...] = jnp.arange(4.0)
        gradient = nnx.grad(lambda layer: jnp.sum(layer(X, **options)))(layer)
        return start, plain(X, **options), layer(X, **options), gradient["bias"][...]

    start, plain, y, gradient = results
    assert_close(start, np.zeros(4))
    assert_close(y, plain + np.arange(4))
    assert_close(gradient, np.full(4, 3.0))


def test_sparse_bias_settles_in_evaluation_and_keeps_its_mass_in_training():
    @at_once
    def results():
        layer, zero = new_layer(**BIASES["sparse"]), jnp.zeros_like(X)
        settled, values = settle(layer.bias_source(), (4,)), layer.bias_source.values[...]
        return settled, values, layer(zero, deterministic=True), layer(zero)

    settled, values, hard, sampled = results
    bias = scatter(settled, (4,))
    assert (bias != 0).any()
    assert_close(hard, np.tile(bias, (3, 1)))
    assert not np.allclose(sampled[0], bias)
    # The values are shared out among cells, none is lost; the batch shares its bias.
    assert_close(sampled.sum(axis=1), np.full(3, values.sum()))
    assert_close(sampled[0], sampled[1])
