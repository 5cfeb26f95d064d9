import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax.nn import FreeHyperLayer
from tests.ops.examples import all_finite, assert_close

OPTIONS = {"num_global": 2, "num_local": 2, "region": (2, 2), "bias": "dense"}
X = jax.random.normal(jax.random.key(1), (3, 5))


def linen_layer():
    return nnx.bridge.to_linen(FreeHyperLayer, (5,), (4,), 6, **OPTIONS)


@pytest.fixture(scope="module")
def variables():
    keys = {"params": jax.random.key(0), "sample": jax.random.key(1)}
    return linen_layer().init(keys, X)


@jax.jit
def sampled(variables, key):
    return linen_layer().apply(variables, X, rngs={"sample": key})


def leaves_by_name(variables):
    """Bring the collections of Linen, one per parameter type, into the tree of the NNX layer."""
    found = {}
    for collection in variables.values():
        for name, leaf in collection.items():
            found[name] = found[name] | leaf if name in found else leaf
    return found


def test_init_makes_the_parameters_of_the_nnx_layer(variables):
    assert {"params", "RawMeans", "RawVariances", "TupleValues"} == set(variables)
    layer = FreeHyperLayer((5,), (4,), 6, **OPTIONS, rngs=nnx.Rngs(0))
    expected = jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(layer, nnx.Param)))
    assert jax.tree.map(jnp.shape, leaves_by_name(variables)) == expected


def test_the_key_decides_the_samples(variables):
    one, two = jax.random.key(2), jax.random.key(3)
    y = sampled(variables, one)
    assert y.shape == (3, 4)
    np.testing.assert_array_equal(sampled(variables, one), y)
    assert not np.allclose(sampled(variables, two), y)


def test_same_parameters_give_the_numbers_of_the_nnx_layer(variables):
    layer = FreeHyperLayer((5,), (4,), 6, **OPTIONS, rngs=nnx.Rngs(7))
    state = nnx.state(layer, nnx.Param)
    nnx.replace_by_pure_dict(state, leaves_by_name(variables))
    nnx.update(layer, state)
    layer.eval()
    hard = linen_layer().apply(variables, X, deterministic=True)
    assert_close(hard, layer(X))
    assert not np.allclose(hard, sampled(variables, jax.random.key(2)))


def test_gradient_reaches_every_parameter(variables):
    def loss(variables):
        return jnp.sum(jnp.square(sampled(variables, jax.random.key(2))))

    gradient = jax.grad(loss)(variables)
    assert all_finite(gradient)
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(gradient))


def test_inside_a_linen_model():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            hidden = nn.relu(linen_layer()(x, deterministic=not train))
            return nn.Dense(2)(hidden)

    model = Model()
    variables = model.init({"params": jax.random.key(0), "sample": jax.random.key(1)}, X, False)
    y = model.apply(variables, X, False)
    np.testing.assert_array_equal(model.apply(variables, X, False), y)
    soft = model.apply(variables, X, True, rngs={"sample": jax.random.key(2)})
    assert soft.shape == y.shape == (3, 2)
    assert not np.allclose(soft, y)
