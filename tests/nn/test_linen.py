from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax.nn import FreeHyperLayer
from tests.ops.examples import assert_close

OPTIONS = {"num_global": 2, "num_local": 2, "region": (2, 2), "bias": "dense"}
X = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)


def linen_layer():
    return nnx.bridge.to_linen(FreeHyperLayer, (5,), (4,), 6, **OPTIONS)


@pytest.fixture(scope="module")
def variables():
    keys = {"params": jax.random.key(0), "sample": jax.random.key(1)}
    return jax.jit(partial(linen_layer().init, deterministic=True))(keys, X)


@jax.jit
def slopes_and_samples(variables, key):
    def loss(variables):
        y = linen_layer().apply(variables, X, rngs={"sample": key})
        return jnp.sum(jnp.square(y)), y

    return jax.grad(loss, has_aux=True)(variables)


def sampled(variables, seed):
    return np.asarray(slopes_and_samples(variables, jax.random.key(seed))[1])


def leaves_by_name(variables):
    """Bring the collections of Linen, one per parameter type, into the tree of the NNX layer."""
    found = {}
    for collection in variables.values():
        for name, leaf in collection.items():
            found[name] = found[name] | leaf if name in found else leaf
    return found


def test_init_makes_the_parameters_of_the_nnx_layer(variables):
    assert {"params", "RawMeans", "RawVariances", "TupleValues"} == set(variables)
    layer = nnx.eval_shape(lambda: FreeHyperLayer((5,), (4,), 6, **OPTIONS, rngs=nnx.Rngs(0)))
    expected = jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(layer, nnx.Param)))
    assert jax.tree.map(jnp.shape, leaves_by_name(variables)) == expected


def test_the_key_decides_the_samples(variables):
    y = sampled(variables, 2)
    assert y.shape == (3, 4)
    np.testing.assert_array_equal(sampled(variables, 2), y)
    assert not np.allclose(sampled(variables, 3), y)


def test_same_parameters_give_the_numbers_of_the_nnx_layer(variables):
    @jax.jit
    def hard_passes(variables):
        layer = FreeHyperLayer((5,), (4,), 6, **OPTIONS, rngs=nnx.Rngs(7))
        state = nnx.state(layer, nnx.Param)
        nnx.replace_by_pure_dict(state, leaves_by_name(variables))
        nnx.update(layer, state)
        layer.eval()
        return linen_layer().apply(variables, X, deterministic=True), layer(X)

    hard, expected = hard_passes(variables)
    assert_close(hard, expected)
    assert not np.allclose(hard, sampled(variables, 2))


def test_gradient_reaches_every_parameter(variables):
    gradient = jax.device_get(slopes_and_samples(variables, jax.random.key(2))[0])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(gradient))


def test_inside_a_linen_model():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            hidden = nn.relu(linen_layer()(x, deterministic=not train))
            return nn.Dense(2)(hidden)

    model = Model()

    @jax.jit
    def hard(variables):
        return model.apply(variables, X, False)

    @jax.jit
    def begin(keys):
        variables = model.init(keys, X, False)
        return variables, model.apply(variables, X, True, rngs={"sample": jax.random.key(2)})

    variables, soft = begin({"params": jax.random.key(0), "sample": jax.random.key(1)})
    y = hard(variables)
    np.testing.assert_array_equal(hard(variables), y)
    assert soft.shape == y.shape == (3, 2)
    assert not np.allclose(soft, y)
